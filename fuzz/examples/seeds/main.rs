//! Makes the seeds in `fuzz/corpus` anew: a few small real inputs of each target, the same at every run.
//!
//! `cargo run --package varve-fuzz --example seeds`

mod frames;
mod logins;
mod stored;

use std::{fs, path::Path};

/// Named inputs of one target.
pub(crate) type Seeds = Vec<(String, Vec<u8>)>;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets = [
        ("batch", stored::batches()),
        ("checkpoint", stored::checkpoints()),
        ("config", config()),
        ("coordinator_record", stored::coordinator_records()),
        ("frame", frames::frames()),
        ("jaas", logins::login_configurations()),
        ("manifest", stored::manifests()),
        ("principal_mapping", logins::mappings()),
        ("raw_object", stored::raw_objects()),
        ("sasl", logins::messages()),
        ("segment", stored::segments()),
        ("share_record", stored::share_records()),
        ("subject", logins::subjects()),
        ("table", stored::tables()),
        ("transaction_record", stored::transaction_records()),
    ];
    for (target, seeds) in targets {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("the checkout can be written");
        for (name, bytes) in seeds {
            fs::write(folder.join(format!("seed-{name}")), bytes).expect("the checkout can be written");
        }
    }
}

/// Every setting that has a default, a few to a file, and the ways in which files are written.
fn config() -> Seeds {
    let table = varve_broker::config::broker_table();
    let lines: Vec<String> = table
        .iter()
        .map(|definition| format!("{}={}\n", definition.name, definition.default.unwrap_or_default()))
        .collect();
    let files = lines.chunks(40).enumerate().map(|(at, lines)| (format!("defaults-{at}"), lines.concat().into_bytes()));
    let by_hand = "# a comment\nlisteners: PLAINTEXT://127.0.0.1:9092,INTERNAL://[::1]:9093\n\
        listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://broker.example:9092\nlog.dirs=/a,\\\n   /b\\u0041\n\
        max.connections.per.ip.overrides=[::1]:3,10.0.0.1:5\nvarve.metadata.url=etcd://a:2379,b:2379/varve\n\
        varve.object.store.url=s3://bucket/prefix?region=eu\n@node.id=7\n$VARVE_LOG_RETENTION_MS=-1\n";
    files.chain([("by-hand".to_owned(), by_hand.as_bytes().to_vec())]).collect()
}
