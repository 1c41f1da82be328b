# One command each; the logic is in xtask.

# Formatting, lints, floors, licences
check:
    cargo xtask check

# Everything that tests need, then every test
test *FILTERS:
    cargo xtask test {{FILTERS}}

# One fuzz target (all when absent) for a bounded time
fuzz TARGET="" SECONDS="60":
    cargo xtask fuzz {{TARGET}} --seconds {{SECONDS}}

# Apache Kafka and Varve side by side
bench *ARGS:
    cargo run --release --package varve-bench -- {{ARGS}}
