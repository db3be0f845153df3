#!/bin/bash
# Makes, once, what the three brokers need: an authority, a certificate for each, and the first user's password. With
# nothing but keytool, which is in Kafka's image.
set -euo pipefail
secrets=${SECRETS:-/secrets}
kafka=${KAFKA:-/opt/kafka}
umask 077

if [ -e "$secrets/done" ]; then
    echo "There are certificates already: $secrets"
    exit 0
fi

# What a run left that was cut off in the middle.
rm -rf "${secrets:?}"/*

random() { head -c 24 /dev/urandom | base64 | tr -d '/+='; }

# Of keys and stores. In a file, since what stands on a command line can be seen.
random > "$secrets/store-password"
store() { keytool -storetype PKCS12 -storepass:file "$secrets/store-password" "$@"; }

mkdir -p "$secrets/client"
authority=$secrets/authority.p12
store -keystore "$authority" -alias authority -genkeypair -keyalg EC -groupname secp256r1 -validity 3650 \
    -dname "CN=quixframes trial authority" -ext bc:c=ca:true -ext ku:c=keyCertSign,cRLSign
store -keystore "$authority" -alias authority -exportcert -rfc -file "$secrets/client/ca.pem"
store -keystore "$secrets/trusted.p12" -alias authority -importcert -noprompt -file "$secrets/client/ca.pem"

for broker in kafka-1 kafka-2 kafka-3; do
    keys=$secrets/$broker.p12
    store -keystore "$keys" -alias "$broker" -genkeypair -keyalg EC -groupname secp256r1 -validity 825 \
        -dname "CN=$broker"
    store -keystore "$keys" -alias "$broker" -certreq -file "$secrets/request"
    # Its names: in the network of the containers, and on the machine that they run on. It also is a client of the others.
    store -keystore "$authority" -alias authority -gencert -rfc -validity 825 -infile "$secrets/request" \
        -outfile "$secrets/answer" -ext "san=dns:$broker,dns:localhost,ip:127.0.0.1" -ext eku=serverAuth,clientAuth
    store -keystore "$keys" -alias authority -importcert -noprompt -file "$secrets/client/ca.pem"
    store -keystore "$keys" -alias "$broker" -importcert -noprompt -file "$secrets/answer"
done
# Without the authority's own key, nobody can make further certificates that the cluster would trust.
rm "$authority" "$secrets/request" "$secrets/answer"

random > "$secrets/client/admin-password"
"$kafka/bin/kafka-storage.sh" random-uuid > "$secrets/cluster-id"
touch "$secrets/done"
# The user as which Kafka's image runs.
if [ "$(id -u)" = 0 ]; then chown -R 1000:1000 "$secrets"; fi
