//! Black-box tests of the varve binary with real clients.
