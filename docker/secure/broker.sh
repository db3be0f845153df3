#!/bin/bash
# Runs broker number BROKER of three, which clients on this machine reach at localhost:PORT.
#
#   HOST        for clients on the machine, CLIENT for those in other containers: TLS, and a login by SCRAM
#   BROKER      for the brokers among themselves, CONTROLLER for who leads: TLS, with certificates on both sides
set -euo pipefail
secrets=${SECRETS:-/secrets}
kafka=${KAFKA:-/opt/kafka}
data=${DATA:-/var/lib/kafka/data}
work=${WORK:-/tmp}
umask 077

password=$(cat "$secrets/store-password")
stores="ssl.keystore.type=PKCS12
ssl.keystore.location=$secrets/kafka-$BROKER.p12
ssl.keystore.password=$password
ssl.key.password=$password
ssl.truststore.type=PKCS12
ssl.truststore.location=$secrets/trusted.p12
ssl.truststore.password=$password"
scram="org.apache.kafka.common.security.scram.ScramLoginModule required;"

cat > "$work/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$BROKER
controller.quorum.voters=1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093
listeners=HOST://:9092,CLIENT://:19092,BROKER://:19093,CONTROLLER://:9093
advertised.listeners=HOST://localhost:$PORT,CLIENT://kafka-$BROKER:19092,BROKER://kafka-$BROKER:19093
listener.security.protocol.map=HOST:SASL_SSL,CLIENT:SASL_SSL,BROKER:SSL,CONTROLLER:SSL
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs=$data

$stores
ssl.enabled.protocols=TLSv1.3,TLSv1.2
ssl.principal.mapping.rules=RULE:^CN=(kafka-[1-3])\$/\$1/,DEFAULT
listener.name.broker.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.host.scram-sha-512.sasl.jaas.config=$scram
listener.name.client.scram-sha-512.sasl.jaas.config=$scram

authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:admin;User:kafka-1;User:kafka-2;User:kafka-3

# A broker may go without loss and without a stop: three copies, of which two have to have a row.
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
unclean.leader.election.enable=false
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
PROPERTIES

# For the healthcheck, which comes as this broker itself.
cat > "$work/health.properties" <<PROPERTIES
security.protocol=SSL
$stores
PROPERTIES

# The first user; others are made through the cluster. What is there already stays. In a file, since what stands on a
# command line can be seen.
cat > "$work/format" <<ARGUMENTS
format
--ignore-formatted
--config=$work/server.properties
--cluster-id=$(cat "$secrets/cluster-id")
--add-scram=SCRAM-SHA-512=[name=admin,password=$(cat "$secrets/client/admin-password")]
ARGUMENTS
# It tells what the cluster will check the password by, which is for no log.
"$kafka/bin/kafka-storage.sh" "@$work/format" > /dev/null
rm "$work/format"
exec "$kafka/bin/kafka-server-start.sh" "$work/server.properties"
