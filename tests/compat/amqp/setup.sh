#!/bin/sh
# Fetches and builds what a client's tests need, once: setup.sh amqplib|rabbitmq-c|amqp091-go|java.
# Everything is pinned: package-lock.json, go.sum, pom.xml, Debian's librabbitmq.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# PROGRAM GROUP: installs the packages of a language when its program is missing.
need() {
    command -v "$1" >/dev/null || "$here/../../../tools/setup" "$2"
}

for client in "$@"; do
    cd "$here/$client"
    case $client in
    amqplib)
        need npm node
        if ! cmp -s package-lock.json node_modules/.installed; then
            npm ci --silent --no-audit --no-fund
            cp package-lock.json node_modules/.installed
        fi
        ;;
    rabbitmq-c)
        mkdir -p .build
        # shellcheck disable=SC2046
        cc -std=gnu17 -O1 -g -Wall -Wextra -Werror -o .build/compat.new ./*.c \
            $(pkg-config --cflags --libs librabbitmq cmocka)
        mv .build/compat.new .build/compat # another suite may run the old one
        ;;
    amqp091-go)
        need go go
        go test -c -o .build/compat.test .
        ;;
    java)
        need mvn java
        newest=$(find pom.xml src -type f -newer target/.built 2>/dev/null | head -n 1 || true)
        if [ ! -e target/.built ] || [ -n "$newest" ]; then
            mvn -q -B package
            touch target/.built
        fi
        ;;
    *)
        echo "setup.sh: unknown client $client" >&2
        exit 2
        ;;
    esac
done
