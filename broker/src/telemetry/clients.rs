//! The clients that push, and when they may: the rules of Kafka's `ClientMetricsManager`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use uuid::Uuid;
use varve_log::format::compression;
use varve_metadata::config::Codec;

use super::{
    exposition::{self, Series},
    otlp,
    subscription::{ClientInfo, Subscription, USUAL_INTERVAL},
};

/// Clients that are remembered, as in Kafka; the one unheard of for longest goes.
const MOST_CLIENTS: usize = 16_384;
/// Series of all clients together; clients unheard of for longest lose theirs.
const MOST_SERIES: usize = 20_000;
/// A client is forgotten after three intervals without a word, and not sooner than this.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// How much a push may grow when it is decompressed, as a multiple of what it may have before.
const EXPANSION: usize = 8;
/// Asks for every metric.
const EVERYTHING: &str = "*";

/// Milliseconds of a clock that does not run backwards.
type Millis = u64;

/// What a client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The client's id: its own, or one that it gets.
    pub id: Uuid,
    /// Stands for what it is asked for; another one once that changes.
    pub subscription_id: i32,
    /// How often it is to push.
    pub interval: Duration,
    /// Prefixes of the metrics to push; `*` for all of them, none for none.
    pub metrics: Vec<String>,
}

/// Why a client gets no answer, or what it pushed does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An id that no client has, or a client that said farewell (INVALID_REQUEST).
    #[error("not a request of a client that pushes")]
    Invalid,
    /// Sooner than the interval allows (THROTTLING_QUOTA_EXCEEDED).
    #[error("the client asks again before its interval has passed")]
    TooSoon,
    /// What is asked for has changed (UNKNOWN_SUBSCRIPTION_ID).
    #[error("the subscription is another one by now")]
    UnknownSubscription,
    /// A codec that does not exist (UNSUPPORTED_COMPRESSION_TYPE).
    #[error("the codec is not known")]
    UnknownCodec,
    /// More bytes than allowed (TELEMETRY_TOO_LARGE).
    #[error("the push is too large")]
    TooLarge,
    /// The bytes are not what they should be (INVALID_RECORD).
    #[error("the push cannot be read")]
    Unreadable,
}

/// What a client pushes.
#[derive(Clone, Copy, Debug)]
pub struct Pushed<'a> {
    /// The client.
    pub id: Uuid,
    /// The subscription that it was told.
    pub subscription_id: i32,
    /// It goes, and this is its last push.
    pub is_last: bool,
    /// Number of the codec.
    pub codec: i8,
    /// OTLP metrics data.
    pub metrics: &'a [u8],
}

impl Pushed<'_> {
    /// What is in it, and whether all of it could be read: what could be counts also if the rest could not. Takes its time: a
    /// push of `max_bytes` may be eight times that once it is decompressed.
    pub fn read(&self, codec: Codec, max_bytes: usize) -> (Series, Result<(), Denied>) {
        let mut series = Series::default();
        let outcome = self.read_into(&mut series, codec, max_bytes);
        (series, outcome)
    }

    fn read_into(&self, series: &mut Series, codec: Codec, max_bytes: usize) -> Result<(), Denied> {
        if self.metrics.is_empty() {
            return Ok(());
        }
        let limit = max_bytes.saturating_mul(EXPANSION);
        let bytes = compression::decompress(codec, self.metrics, limit).map_err(|_| Denied::Unreadable)?;
        otlp::read(&bytes, &mut |point| series.take(&point)).map_err(|_| Denied::Unreadable)
    }
}

#[derive(Debug)]
struct Client {
    info: ClientInfo,
    subscribed: Subscribed,
    /// State of the subscriptions that `subscribed` was made from.
    version: u64,
    last_get: Option<Millis>,
    last_push: Option<Millis>,
    heard: Millis,
    is_gone: bool,
    /// Its last push was refused in a way that sends it back to ask anew.
    may_ask_again: bool,
    series: Series,
}

/// All clients that push.
#[derive(Debug)]
pub struct ClientMetrics {
    max_bytes: usize,
    subscriptions: BTreeMap<String, Subscription>,
    version: u64,
    clients: HashMap<Uuid, Client>,
    series: usize,
}

impl ClientMetrics {
    /// Nobody is asked for anything. A push has at most `max_bytes` (`telemetry.max.bytes`).
    pub fn new(max_bytes: usize) -> ClientMetrics {
        ClientMetrics { max_bytes, subscriptions: BTreeMap::new(), version: 0, clients: HashMap::new(), series: 0 }
    }

    /// The most bytes of one push.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// From now on these are the subscriptions.
    pub fn subscribe(&mut self, subscriptions: BTreeMap<String, Subscription>) {
        self.subscriptions = subscriptions;
        self.version += 1;
    }

    /// A client asks what to push. The nil id: it has none yet.
    ///
    /// # Errors
    /// [`Denied::TooSoon`].
    pub fn get(&mut self, id: Uuid, info: &ClientInfo, now: Millis) -> Result<Subscribed, Denied> {
        let id = if id.is_nil() { Uuid::new_v4() } else { id };
        let client = self.client(id, info, now);
        let last = client.last_get.max(client.last_push);
        let is_due = last.is_none_or(|last| now.saturating_sub(last) >= client.subscribed.interval.as_millis() as u64);
        if is_due {
            client.last_get = Some(now);
        } else if !client.may_ask_again {
            return Err(Denied::TooSoon);
        }
        client.may_ask_again = false;
        Ok(client.subscribed.clone())
    }

    /// A client pushes. If it may, [`read`](Pushed::read) with the codec that this returns, then [`take`](Self::take).
    ///
    /// # Errors
    /// [`Denied`]: nothing of it counts.
    pub fn admit(&mut self, pushed: &Pushed<'_>, info: &ClientInfo, now: Millis) -> Result<Codec, Denied> {
        // Kafka reserves the ids 0 and 1.
        if pushed.id.as_u128() <= 1 {
            return Err(Denied::Invalid);
        }
        let max_bytes = self.max_bytes;
        let client = self.client(pushed.id, info, now);
        let checked = check(client, pushed, max_bytes, now);
        client.is_gone = pushed.is_last;
        client.may_ask_again = matches!(checked, Err(Denied::UnknownSubscription | Denied::UnknownCodec));
        checked
    }

    /// What the client `id` pushed counts, unless the client is gone meanwhile.
    pub fn take(&mut self, id: Uuid, pushed: Series) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let before = client.series.len();
        client.series.merge(pushed);
        self.series += client.series.len() - before;
        self.shrink(id);
    }

    /// The connection that `id` came by is gone, and the client with it.
    pub fn forget(&mut self, id: Uuid) {
        if let Some(client) = self.clients.remove(&id) {
            self.series -= client.series.len();
        }
    }

    /// Forgets who was not heard of for long.
    pub fn expire(&mut self, now: Millis) {
        let patience = |client: &Client| FORGET_AFTER.max(3 * client.subscribed.interval).as_millis() as u64;
        self.clients.retain(|_, client| now.saturating_sub(client.heard) <= patience(client));
        self.series = self.clients.values().map(|client| client.series.len()).sum();
    }

    /// How many clients are known.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no client is known.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Everything that was pushed and counts, in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let labelled = self.clients.iter().map(|(id, client)| {
            let name = exposition::escaped(&client.info.client_id);
            (format!("client_id=\"{name}\",client_instance_id=\"{id}\""), &client.series)
        });
        exposition::write(labelled, &mut out);
        out
    }

    /// The client with that id, as the subscriptions of now see it.
    fn client(&mut self, id: Uuid, info: &ClientInfo, now: Millis) -> &mut Client {
        if !self.clients.contains_key(&id) && self.clients.len() >= MOST_CLIENTS {
            self.forget_quietest(MOST_CLIENTS / 16);
        }
        let version = self.version;
        if let Some(known) = self.clients.get_mut(&id)
            && known.version != version
        {
            // Asked for something else: as a client that is new, so that it hears of it at once.
            known.subscribed = subscribed(&self.subscriptions, id, &known.info);
            (known.version, known.last_get, known.last_push, known.is_gone) = (version, None, None, false);
        }
        let subscriptions = &self.subscriptions;
        let client = self.clients.entry(id).or_insert_with(|| Client {
            info: info.clone(),
            subscribed: subscribed(subscriptions, id, info),
            version,
            last_get: None,
            last_push: None,
            heard: now,
            is_gone: false,
            may_ask_again: false,
            series: Series::default(),
        });
        client.heard = now;
        client
    }

    /// Room for more series, at the cost of those who were not heard of for longest, but not of `id`.
    fn shrink(&mut self, id: Uuid) {
        if self.series <= MOST_SERIES {
            return;
        }
        let mut clients: Vec<(&Uuid, &mut Client)> = self.clients.iter_mut().collect();
        clients.sort_by_key(|(_, client)| client.heard);
        for (_, client) in clients.into_iter().filter(|(other, _)| **other != id) {
            if self.series <= MOST_SERIES {
                return;
            }
            self.series -= client.series.len();
            client.series = Series::default();
        }
    }

    /// Forgets `count` clients, those first that were not heard of for longest.
    fn forget_quietest(&mut self, count: usize) {
        let mut heard: Vec<(Millis, Uuid)> = self.clients.iter().map(|(id, client)| (client.heard, *id)).collect();
        heard.sort_unstable();
        for (_, id) in heard.into_iter().take(count.max(1)) {
            self.forget(id);
        }
    }
}

fn check(client: &mut Client, pushed: &Pushed<'_>, max_bytes: usize, now: Millis) -> Result<Codec, Denied> {
    if client.is_gone {
        return Err(Denied::Invalid);
    }
    // Right after it was told what to push a client may do so: it spreads its first push over the interval.
    let is_first = client.last_get > client.last_push;
    let interval = client.subscribed.interval.as_millis() as u64;
    let is_due = client.last_push.is_none_or(|last| now.saturating_sub(last) >= interval);
    if is_first || is_due {
        client.last_push = Some(now);
    } else if !pushed.is_last {
        return Err(Denied::TooSoon);
    }
    if pushed.subscription_id != client.subscribed.subscription_id {
        return Err(Denied::UnknownSubscription);
    }
    let codec = u8::try_from(pushed.codec).ok().and_then(Codec::from_wire).ok_or(Denied::UnknownCodec)?;
    if pushed.metrics.len() > max_bytes { Err(Denied::TooLarge) } else { Ok(codec) }
}

fn subscribed(subscriptions: &BTreeMap<String, Subscription>, id: Uuid, info: &ClientInfo) -> Subscribed {
    let text = id.to_string();
    let meant: Vec<&Subscription> = subscriptions.values().filter(|one| one.matches(&text, info)).collect();
    let metrics: BTreeSet<&str> = meant.iter().flat_map(|one| &one.metrics).map(String::as_str).collect();
    let metrics = if metrics.contains(EVERYTHING) { BTreeSet::from([EVERYTHING]) } else { metrics };
    let interval = meant.iter().map(|one| one.interval).fold(USUAL_INTERVAL, Duration::min);
    let metrics: Vec<String> = metrics.into_iter().map(str::to_owned).collect();
    let subject = format!("{}{}", metrics.join(","), interval.as_millis());
    let (high, low) = id.as_u64_pair();
    let folded = high ^ low;
    let subscription_id = crc32c::crc32c(subject.as_bytes()) ^ ((folded >> 32) ^ folded) as u32;
    Subscribed { id, subscription_id: subscription_id as i32, interval, metrics }
}

#[cfg(test)]
mod tests {
    use super::{super::otlp::testing, *};

    const ID: Uuid = Uuid::from_u128(77);

    fn asked(settings: &[(&str, &str)]) -> BTreeMap<String, Subscription> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        BTreeMap::from([("s".to_owned(), Subscription::parse(&settings).unwrap())])
    }

    fn info() -> ClientInfo {
        ClientInfo { client_id: "app".into(), ..ClientInfo::default() }
    }

    fn every_second() -> ClientMetrics {
        let mut metrics = ClientMetrics::new(1 << 20);
        metrics.subscribe(asked(&[("metrics", "*"), ("interval.ms", "1000")]));
        metrics
    }

    fn push(metrics: &mut ClientMetrics, told: &Subscribed, bytes: &[u8], now: Millis) -> Result<(), Denied> {
        let pushed =
            Pushed { id: told.id, subscription_id: told.subscription_id, is_last: false, codec: 0, metrics: bytes };
        take(metrics, &pushed, now)
    }

    fn take(metrics: &mut ClientMetrics, pushed: &Pushed<'_>, now: Millis) -> Result<(), Denied> {
        let codec = metrics.admit(pushed, &info(), now)?;
        let (series, outcome) = pushed.read(codec, metrics.max_bytes());
        metrics.take(pushed.id, series);
        outcome
    }

    #[test]
    fn a_client_is_told_what_to_push_and_what_it_pushes_is_shown() {
        let mut metrics = every_second();
        let told = metrics.get(Uuid::nil(), &info(), 0).unwrap();
        assert_eq!((told.metrics.as_slice(), told.interval), (&["*".to_owned()][..], Duration::from_secs(1)));
        let sent = testing::push("org.apache.kafka.producer.rate", &[("node_id", "1")], 7.0, false);
        push(&mut metrics, &told, &sent, 1).unwrap();
        let line = format!(
            "kafka_client_producer_rate{{client_id=\"app\",client_instance_id=\"{}\",node_id=\"1\"}} 7\n",
            told.id
        );
        assert!(metrics.text().contains(&line), "{}", metrics.text());
        metrics.forget(told.id);
        assert_eq!(metrics.text(), "");
    }

    #[test]
    fn what_a_client_pushed_before_it_was_forgotten_is_not_shown() {
        let mut metrics = every_second();
        let told = metrics.get(ID, &info(), 0).unwrap();
        let sent = testing::push("x", &[], 7.0, false);
        let (id, subscription_id) = (ID, told.subscription_id);
        let pushed = Pushed { id, subscription_id, is_last: false, codec: 0, metrics: &sent };
        let codec = metrics.admit(&pushed, &info(), 1).unwrap();
        let (series, outcome) = pushed.read(codec, metrics.max_bytes());
        metrics.forget(ID);
        metrics.take(ID, series);
        assert_eq!((outcome, metrics.text().as_str(), metrics.series), (Ok(()), "", 0));
    }

    #[test]
    fn who_asks_or_pushes_too_soon_is_held_to_the_interval() {
        let mut metrics = every_second();
        let told = metrics.get(ID, &info(), 0).unwrap();
        assert_eq!(metrics.get(ID, &info(), 999), Err(Denied::TooSoon));
        assert_eq!(push(&mut metrics, &told, &[], 500), Ok(()), "the first push comes when it likes");
        assert_eq!(push(&mut metrics, &told, &[], 1400), Err(Denied::TooSoon));
        assert_eq!(push(&mut metrics, &told, &[], 1500), Ok(()));
        let last = Pushed { id: ID, subscription_id: told.subscription_id, is_last: true, codec: 0, metrics: &[] };
        assert_eq!(take(&mut metrics, &last, 1501), Ok(()), "the last one too");
        assert_eq!(take(&mut metrics, &last, 9999), Err(Denied::Invalid), "and it was the last");
    }

    #[test]
    fn a_client_of_an_old_subscription_is_sent_to_ask_anew() {
        let mut metrics = every_second();
        let told = metrics.get(ID, &info(), 0).unwrap();
        metrics.subscribe(asked(&[("metrics", "a."), ("interval.ms", "2000")]));
        assert_eq!(push(&mut metrics, &told, &[], 1), Err(Denied::UnknownSubscription));
        let again = metrics.get(ID, &info(), 2).unwrap();
        assert_ne!(again.subscription_id, told.subscription_id);
        assert_eq!(again.metrics, ["a."]);
        metrics.subscribe(BTreeMap::new());
        assert_eq!(metrics.get(ID, &info(), 3).unwrap().metrics, [] as [String; 0], "nothing is asked for any more");
    }

    #[test]
    fn pushes_that_cannot_be_are_refused() {
        let mut metrics = ClientMetrics::new(100);
        let told = metrics.get(ID, &info(), 0).unwrap();
        let with = |codec, bytes| Pushed {
            id: ID,
            subscription_id: told.subscription_id,
            is_last: true,
            codec,
            metrics: bytes,
        };
        let mut refused = |pushed: Pushed<'_>| {
            metrics.forget(ID);
            metrics.get(ID, &info(), 0).unwrap();
            take(&mut metrics, &pushed, 1)
        };
        assert_eq!(refused(Pushed { id: Uuid::from_u128(1), ..with(0, &[]) }), Err(Denied::Invalid));
        assert_eq!(refused(with(9, &[])), Err(Denied::UnknownCodec));
        assert_eq!(refused(with(-1, &[])), Err(Denied::UnknownCodec));
        assert_eq!(refused(with(0, &[0; 101])), Err(Denied::TooLarge));
        assert_eq!(refused(with(0, b"nonsense")), Err(Denied::Unreadable));
        assert_eq!(refused(with(4, b"no zstd")), Err(Denied::Unreadable));
        // A small push that would grow without end.
        let bomb = compression::compress(Codec::Gzip, None, &vec![0; 10_000]).unwrap();
        assert!(bomb.len() <= 100, "{}", bomb.len());
        assert_eq!(refused(with(1, &bomb)), Err(Denied::Unreadable));
    }

    #[test]
    fn clients_and_series_are_bounded_and_quiet_clients_go_first() {
        let mut metrics = every_second();
        for number in 0..MOST_CLIENTS as u128 + 100 {
            metrics.get(Uuid::from_u128(100 + number), &info(), number as u64).unwrap();
        }
        assert!(metrics.len() <= MOST_CLIENTS);
        assert!(!metrics.clients.contains_key(&Uuid::from_u128(100)), "the first was the quietest");
        metrics.expire(10_000_000);
        assert!(metrics.is_empty());
        for number in 0..MOST_SERIES as u128 / 400 + 10 {
            let told = metrics.get(Uuid::from_u128(100 + number), &info(), number as u64).unwrap();
            let sent: Vec<u8> = (0..450).flat_map(|name| testing::push(&format!("m{name}"), &[], 1.0, false)).collect();
            push(&mut metrics, &told, &sent, number as u64).unwrap();
            assert!(metrics.series <= MOST_SERIES);
        }
        assert_eq!(metrics.clients[&Uuid::from_u128(100)].series.len(), 0);
    }
}
