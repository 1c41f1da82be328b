# One command each; the logic is in xtask. Without just, type the line that stands below a name.

# What there is
default:
    @just --list --unsorted

# A node on loopback, with its data in ./varve-data
run *ARGS:
    cargo run --release -- {{ARGS}}

# Brokers from port 9092 on, one etcd and a bucket, on loopback, until Ctrl-C
cluster N="3":
    cargo xtask cluster {{N}}

# deploy/terraform's cluster on emulators of AWS: up, smoke, down
rig *ARGS:
    cargo xtask rig {{ARGS}}

# Everything that tests need, then every test, or those that match
test *FILTERS:
    cargo xtask test {{FILTERS}}

# Formatting, floors, lints, documentation, licences
check:
    cargo xtask check

# One fuzz target (all when absent) for a bounded time
fuzz TARGET="" SECONDS="60":
    cargo xtask fuzz {{TARGET}} --seconds {{SECONDS}}

# Apache Kafka and Varve side by side; the report goes to bench/results
bench *ARGS:
    cargo xtask tools
    cargo build --release
    cargo run --release --package varve-bench -- {{ARGS}}

# docs/configuration.md and docs/metrics.md from the definitions
docs:
    cargo run --quiet -- config docs > docs/.configuration.md
    mv docs/.configuration.md docs/configuration.md
    cargo run --quiet -- metrics docs > docs/.metrics.md
    mv docs/.metrics.md docs/metrics.md

# Every simulation, for as long as you like: --minutes, --from
simulate *ARGS:
    cargo xtask simulate {{ARGS}}

# A static binary and its Debian package, in target/package
package *ARGS:
    cargo xtask package {{ARGS}}

# A cluster of another commit's brokers, upgraded under load to these
mixed COMMIT *ARGS:
    cargo xtask mixed {{COMMIT}} {{ARGS}}
