//! What the archive costs: size against zstd batches, CPU to encode and verify, CPU to read back.
//!
//! `cargo run --release -p varve-table --example measure -- [--mb 200] [FILE-or-DIRECTORY ...]`
//!
//! Measures made-up JSON logs and small metrics, and the lines of every file given, repeated with later timestamps until
//! there are enough. CPU is this thread's; sizes are exact.

use std::{fs, path::PathBuf};

use varve_log::format::{BatchBuilder, RecordContent, batches};
use varve_metadata::{
    config::Codec,
    model::{Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId},
};
use varve_table::{EncodeOptions, Fetched, Recompression, TableFooter, TableMeta, encode};

const START_MS: i64 = 1_700_000_000_000;

fn main() -> anyhow::Result<()> {
    let mut megabytes = 200;
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--mb" => megabytes = arguments.next().unwrap_or_default().parse()?,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    let bytes = megabytes << 20;
    println!(
        "data          raw MB  zstd batches  parquet   ratio  encode+verify s/GB  decode MB/s  recompress MB/s  carried"
    );
    measure("json logs", &json_logs(bytes))?;
    measure("metrics", &metrics(bytes))?;
    let lines = lines_of(&files)?;
    if !lines.is_empty() {
        measure("loghub lines", &repeated_lines(&lines, bytes))?;
    }
    Ok(())
}

/// Batches as producers send them, compressed with zstd.
struct Log {
    batches: Vec<u8>,
    /// Size of the batches uncompressed.
    raw: usize,
    next: u64,
    builder: Option<BatchBuilder>,
    in_builder: usize,
    batch_bytes: usize,
}

impl Log {
    fn new(batch_bytes: usize) -> Log {
        Log { batches: Vec::new(), raw: 0, next: 0, builder: None, in_builder: 0, batch_bytes }
    }

    fn push(&mut self, millis: i64, key: Option<&[u8]>, value: &[u8], headers: &[(&[u8], Option<&[u8]>)]) {
        let producer = (self.raw / self.batch_bytes % 8) as i64;
        let builder = self.builder.get_or_insert_with(|| {
            BatchBuilder::new(Offset::new(self.next).expect("small")).compression(Codec::Zstd, None).producer(
                ProducerId::from_wire(producer).expect("positive"),
                ProducerEpoch(0),
                Sequence::from_wire((self.next % 1_000_000) as i32),
            )
        });
        builder.push(RecordContent {
            timestamp: Timestamp::from_wire(START_MS + millis),
            key,
            value: Some(value),
            headers,
        });
        self.next += 1;
        self.in_builder += value.len() + key.map_or(0, <[u8]>::len) + 20;
        if self.in_builder >= self.batch_bytes {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(builder) = self.builder.take() {
            self.batches.extend_from_slice(&builder.build().expect("compresses"));
            self.raw += self.in_builder;
            self.in_builder = 0;
        }
    }
}

/// A cheap source of numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn json_logs(bytes: usize) -> Log {
    let mut log = Log::new(64 << 10);
    let mut numbers = Numbers(1);
    let levels = ["INFO", "INFO", "INFO", "WARN", "ERROR"];
    let paths = ["/api/v1/orders", "/api/v1/users", "/api/v1/carts", "/healthz", "/api/v2/search"];
    let mut millis = 0;
    while log.raw < bytes {
        let n = numbers.next();
        millis += (n % 3) as i64;
        let level = levels[(n >> 8) as usize % levels.len()];
        let path = paths[(n >> 16) as usize % paths.len()];
        let host = format!("host-{:03}", (n >> 24) % 200);
        let trace = format!("{:016x}{:016x}", numbers.next(), numbers.next());
        let value = format!(
            "{{\"ts\":{},\"level\":\"{level}\",\"service\":\"svc-{}\",\"host\":\"{host}\",\"trace_id\":\"{trace}\",\
             \"method\":\"GET\",\"path\":\"{path}/{}\",\"status\":{},\"duration_ms\":{}.{:03},\"bytes\":{},\
             \"user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/12{}.0\",\
             \"msg\":\"request finished for customer {} after {} attempts in zone eu-central-1{}\"}}",
            START_MS + millis,
            (n >> 32) % 40,
            (n >> 40) % 100_000,
            [200, 200, 200, 404, 500][(n >> 12) as usize % 5],
            (n >> 20) % 900,
            (n >> 30) % 1000,
            (n >> 13) % 50_000,
            n % 10,
            (n >> 33) % 1_000_000,
            n % 4,
            ["a", "b", "c"][(n >> 50) as usize % 3],
        );
        let headers: [(&[u8], Option<&[u8]>); 3] = [
            (b"trace_id", Some(trace.as_bytes())),
            (b"level", Some(level.as_bytes())),
            (b"source", Some(b"varve-measure")),
        ];
        log.push(millis, Some(host.as_bytes()), value.as_bytes(), &headers);
    }
    log.finish();
    log
}

fn metrics(bytes: usize) -> Log {
    let mut log = Log::new(16 << 10);
    let mut numbers = Numbers(2);
    let mut millis = 0;
    while log.raw < bytes {
        let n = numbers.next();
        millis += i64::from(n.is_multiple_of(16));
        let key = format!("cpu.load.host-{:04}", n % 2000);
        let value = format!(
            "{{\"v\":{}.{:02},\"t\":{},\"unit\":\"percent\"}}",
            (n >> 20) % 100,
            (n >> 30) % 100,
            START_MS + millis
        );
        log.push(millis, Some(key.as_bytes()), value.as_bytes(), &[]);
    }
    log.finish();
    log
}

fn lines_of(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut lines = Vec::new();
    for file in files {
        let inner = if file.is_dir() {
            let entries: Result<Vec<_>, _> = fs::read_dir(file)?.map(|entry| entry.map(|entry| entry.path())).collect();
            entries?
        } else {
            vec![file.clone()]
        };
        for path in inner.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let content = fs::read(&path)?;
            lines.extend(content.split(|byte| *byte == b'\n').map(|line| (name.clone(), line.to_vec())));
        }
    }
    Ok(lines)
}

/// The lines over and over; each round has its own number in front, as a real log's time stamps differ.
fn repeated_lines(lines: &[(String, Vec<u8>)], bytes: usize) -> Log {
    let mut log = Log::new(64 << 10);
    let mut numbers = Numbers(3);
    let mut millis = 0;
    'rounds: loop {
        for (source, line) in lines {
            millis += (numbers.next() % 5) as i64;
            let mut value = format!("{} ", START_MS + millis).into_bytes();
            value.extend_from_slice(line);
            let headers: [(&[u8], Option<&[u8]>); 3] =
                [(b"host", Some(b"host-1")), (b"level", Some(b"INFO")), (b"source", Some(source.as_bytes()))];
            log.push(millis, Some(source.as_bytes()), &value, &headers);
            if log.raw >= bytes {
                break 'rounds;
            }
        }
    }
    log.finish();
    log
}

fn measure(name: &str, log: &Log) -> anyhow::Result<()> {
    let zstd = log.batches.len() as f64;
    let whole = || batches(&log.batches).map(|batch| batch.expect("just built"));
    let topic = TopicId::random();
    let meta = TableMeta {
        partition: PartitionId { topic, index: PartitionIndex(0) },
        base: Offset::ZERO,
        end: Offset::new(log.next).expect("small"),
        leader_epochs: Vec::new(),
        aborted: Vec::new(),
        producers: None,
    };
    let before = cpu_seconds();
    let table = encode(whole(), meta, EncodeOptions::default())?;
    let encoding = cpu_seconds() - before;
    let raw = table.summary.frame_bytes as f64;
    if let Some(directory) = std::env::var_os("VARVE_MEASURE_KEEP") {
        fs::write(PathBuf::from(directory).join(format!("{}.parquet", name.replace(' ', "-"))), &table.bytes)?;
    }

    let footer = TableFooter::parse(table.bytes.len() as u64, table.bytes.clone())?;
    let read = |recompression| -> anyhow::Result<f64> {
        let fetched = Fetched::whole(table.bytes.clone());
        let before = cpu_seconds();
        let mut from = Offset::ZERO;
        let mut out = 0;
        while let Some(plan) = footer.plan_group(from)? {
            out += footer.decode(&plan, &fetched, recompression)?.len();
            from = plan.end();
        }
        assert!(out > 0);
        Ok(raw / (cpu_seconds() - before) / 1e6)
    };
    println!(
        "{name:<13} {:>6.0}  {:>12.4}  {:>7.4}  {:>6.3}  {:>18.2}  {:>11.0}  {:>15.0}  {:>7}",
        raw / 1e6,
        zstd / raw,
        table.summary.bytes as f64 / raw,
        table.summary.bytes as f64 / zstd,
        encoding / (raw / 1e9),
        read(Recompression::None)?,
        read(Recompression::Producer)?,
        table.summary.carried_batches,
    );
    Ok(())
}

/// CPU time of this thread; Linux counts it in nanoseconds.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("a number") / 1e9
}
