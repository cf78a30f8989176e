#!/bin/sh
# rabbitmq-c, pika and kcat at once against one broker of several shards; see mixed.py.
set -eu
cd "$(dirname "$0")/../.."
venv="python3 tests/harness/pinned_venv.py run"
exec python3 tests/harness/with_weir.py --arg=--shards --arg=3 -- python3 tests/compat/mixed.py \
    "tests/compat/amqp/rabbitmq-c/.build/compat" \
    "$venv tests/compat/amqp/pika tests/compat/amqp/order_stress.py --seconds 10" \
    "$venv tests/compat/kafka/kcat tests/compat/kafka/pytest_suite.py tests/compat/kafka/kcat --jobs 2"
