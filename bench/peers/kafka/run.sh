#!/bin/sh
# Runs Apache Kafka from its own jars: KRaft, one node, in the foreground until SIGTERM.
#
#   run.sh DATA PORT [KEY=VALUE ...]
#
# Everything is Kafka's default except what one node on loopback needs: the listeners, and a
# replication factor of 1 for the internal topics. KEY=VALUE pairs are broker settings on top.
# DATA is formatted when it is new; run.sh again with the same DATA continues with it.
# KAFKA_HEAP_OPTS, KAFKA_JVM_OPTS: JVM flags (default: those of kafka-server-start.sh).
# Prints one line `ready` when the broker takes connections.
set -eu

if [ $# -lt 2 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
data=$1
port=$2
shift 2

if [ ! -d "$here/target/lib" ]; then
    (cd "$here" && mvn -q -B package >&2)
fi

mkdir -p "$data"
data=$(cd "$data" && pwd)
config=$data/server.properties
cluster_id=5L6g3nShT-eMCtK--X86sw

# The controller's port is picked once and kept, since the quorum voters name it.
if [ -f "$data/controller.port" ]; then
    controller_port=$(cat "$data/controller.port")
else
    controller_port=$(python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    echo "$controller_port" >"$data/controller.port"
fi

{
    echo "process.roles=broker,controller"
    echo "node.id=1"
    echo "controller.quorum.voters=1@127.0.0.1:$controller_port"
    echo "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port"
    echo "advertised.listeners=PLAINTEXT://127.0.0.1:$port"
    echo "controller.listener.names=CONTROLLER"
    echo "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
    echo "log.dirs=$data/log"
    echo "offsets.topic.replication.factor=1"
    echo "transaction.state.log.replication.factor=1"
    echo "transaction.state.log.min.isr=1"
    echo "share.coordinator.state.topic.replication.factor=1"
    echo "share.coordinator.state.topic.min.isr=1"
    for setting in "$@"; do
        echo "$setting"
    done
} >"$config"

# shellcheck disable=SC2086  # the JVM flags are meant to be split
java_run() {
    exec java ${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} \
        ${KAFKA_JVM_OPTS:--server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true} \
        "-Dlog4j2.configurationFile=$here/log4j2.yaml" "-Dweir.log=$data/server.log" \
        -cp "$here/target/lib/*" "$@"
}

if [ ! -f "$data/log/meta.properties" ]; then
    (java_run kafka.tools.StorageTool format -t "$cluster_id" -c "$config") >"$data/format.log" 2>&1 ||
        { cat "$data/format.log" >&2; exit 1; }
fi

# This shell becomes the broker; a watcher beside it reads the broker's log for its start.
touch "$data/server.log"
first_line=$(($(wc -l <"$data/server.log") + 1))
(
    while kill -0 $$ 2>/dev/null; do
        if tail -n "+$first_line" "$data/server.log" | grep -q 'Kafka Server started'; then
            echo ready
            break
        fi
        sleep 0.1
    done
) &
java_run kafka.Kafka "$config"
