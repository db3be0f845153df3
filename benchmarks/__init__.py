"""quixframes beside its neighbours: how many rows and bytes a second each writes to, and reads from, one real Kafka."""
