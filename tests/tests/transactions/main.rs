//! Transactions, exactly once: each client library by itself, histories with `kill -9` in between, and readers of committed
//! records in every tier.

mod histories;
mod suites;
mod tiers;
