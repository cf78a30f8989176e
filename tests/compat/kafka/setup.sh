#!/bin/sh
# Fetches and builds what a client's tests need, once: setup.sh kafkajs|franz|sarama|java...
# Everything is pinned: package-lock.json, go.sum, pom.xml.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# PROGRAM GROUP: installs the packages of a language when its program is missing.
need() {
    command -v "$1" >/dev/null || "$here/../../../tools/setup" "$2"
}

for client in "$@"; do
    cd "$here/$client"
    case $client in
    kafkajs)
        need npm node
        if ! cmp -s package-lock.json node_modules/.installed; then
            npm ci --silent --no-audit --no-fund
            cp package-lock.json node_modules/.installed
        fi
        ;;
    franz | sarama)
        need go go
        go test -c -o .build/compat.test .
        ;;
    java)
        need mvn java
        exec 9>.setup.lock && flock 9 # two suites set it up at the same time
        newest=$(find pom.xml src -type f -newer target/.built 2>/dev/null | head -n 1 || true)
        if [ ! -e target/.built ] || [ -n "$newest" ]; then
            for version in 3.9 4; do
                mvn -q -B "-Pkafka-$version" package
            done
            touch target/.built
        fi
        ;;
    *)
        echo "setup.sh: unknown client $client" >&2
        exit 2
        ;;
    esac
done
