//! Real clients at protected listeners: every library by every way in that it knows, whoever is not let in, users and tokens
//! by Kafka's tools, and no secret anywhere that it could be read.

mod page;
mod provider;
mod suites;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use varve_tests::{
    certificates::{Authority, Identity},
    client::Client,
    node::{Node, eventually, varve},
    tools,
};

const PASSWORDS: [&str; 3] = ["plain-hunter2", "scram-hunter2", "token-hunter2"];

/// A node with a listener for each protocol, and what its clients need.
struct Secured {
    node: Node,
    authority: Authority,
    alice: Identity,
    expired: Identity,
    stranger: Identity,
    tokens: KeyPair,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start() -> Result<Secured> {
        Secured::start_with_keys(|folder, _, _| Ok(format!("file://{}", folder.join("keys.json").display())))
    }

    /// With the keys of tokens at an URL of `keys`, which is given the folder that `keys.json` is in, the broker's identity and
    /// the command that will start the node.
    fn start_with_keys(keys: impl FnOnce(&Path, &Identity, &mut Command) -> Result<String>) -> Result<Secured> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let authority = Authority::new(folder.path(), "ca")?;
        let broker = authority.issue("broker", &["localhost", "127.0.0.1"], false)?;
        let alice = authority.issue("alice", &[], false)?;
        let expired = authority.issue("expired", &[], true)?;
        let stranger = Authority::new(folder.path(), "other")?.issue("stranger", &[], false)?;
        let tokens = KeyPair::generate()?;
        let point = tokens.der_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        fs::write(
            folder.path().join("keys.json"),
            json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y}]}).to_string(),
        )?;
        let mut command = varve()?;
        let keys = keys(folder.path(), &broker, &mut command)?;
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0,SASL_SSL://127.0.0.1:0"
                .to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", broker.both.display()),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", at("ca.pem")),
            "listener.name.ssl.ssl.client.auth=requested".to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
            format!("sasl.jaas.config=x.PlainLoginModule required user_alice=\"{}\";", PASSWORDS[0]),
            format!(
                "varve.first.users=SCRAM-SHA-256=[name=alice,password={0}];SCRAM-SHA-512=[name=alice,password={0}]",
                PASSWORDS[1]
            ),
            format!("delegation.token.secret.key={}", PASSWORDS[2]),
            format!("sasl.oauthbearer.jwks.endpoint.url={keys}"),
            "sasl.oauthbearer.expected.audience=kafka".to_owned(),
            "connection.failed.authentication.delay.ms=1".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let node = Node::launch(folder.path(), command, &settings)?;
        Client::connect(node.address)?.create_topic("logs", 1, &[])?;
        Ok(Secured { node, authority, alice, expired, stranger, tokens, folder })
    }

    fn token(&self, expires_in: i64) -> Result<String> {
        let now = std::time::UNIX_EPOCH.elapsed()?.as_secs() as i64;
        let claims = json!({"sub": "alice", "aud": "kafka", "iat": now - 3600, "exp": now + expires_in});
        let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, &claims, &EncodingKey::from_ec_der(&self.tokens.serialize_der()))?)
    }

    /// What a client of `library` is told to come in by `way`, and to send `value`.
    fn options(&self, library: &str, way: &str, value: &str) -> Result<Value> {
        let (protocol, mechanism) = way.split_once(' ').unwrap_or((way, ""));
        let protocol_of_listener = if protocol == "mTLS" { "SSL" } else { protocol };
        let mut options = json!({
            "library": library,
            "bootstrap": self.node.listener(protocol_of_listener)?.to_string(),
            "topic": "logs",
            "value": value,
            "protocol": protocol_of_listener,
        });
        let text = |path: &Path| path.display().to_string();
        if protocol_of_listener.ends_with("SSL") {
            options["ca"] = text(&self.authority.certificate).into();
        }
        if protocol == "mTLS" {
            options["certificate"] = text(&self.alice.certificate).into();
            options["key"] = text(&self.alice.key).into();
        }
        match mechanism {
            "" => {}
            "OAUTHBEARER" => {
                options["mechanism"] = mechanism.into();
                options["token"] = self.token(3600)?.into();
            }
            _ => {
                options["mechanism"] = mechanism.into();
                options["user"] = "alice".into();
                options["password"] = PASSWORDS[usize::from(mechanism != "PLAIN")].into();
            }
        }
        Ok(options)
    }
}

fn program(library: &str) -> Result<Command> {
    match library {
        "kafkajs" => {
            let mut command = Command::new("node");
            command.arg(tools::checkout().join("tests/clients/node/secure.js"));
            Ok(command)
        }
        "franz-go" | "sarama" => {
            let mut command = tools::program("go-client")?;
            command.arg("secure");
            Ok(command)
        }
        _ => tools::python("tests/clients/python/secure.py"),
    }
}

/// Every way in: one of each protocol, and every mechanism on one of the two that have some.
const WAYS: [&str; 8] = [
    "SSL",
    "mTLS",
    "SASL_PLAINTEXT PLAIN",
    "SASL_SSL PLAIN",
    "SASL_PLAINTEXT SCRAM-SHA-256",
    "SASL_SSL SCRAM-SHA-512",
    "SASL_PLAINTEXT OAUTHBEARER",
    "SASL_SSL OAUTHBEARER",
];

fn gets_in(library: &str) -> Result<()> {
    let secured = Secured::start()?;
    // Whoever uses sarama brings an implementation of SCRAM.
    let known = |way: &str| library != "sarama" || !way.contains("SCRAM");
    for way in WAYS.into_iter().filter(|way| known(way)) {
        let options = secured.options(library, way, &format!("{library} by {way}"))?;
        tools::output_of(program(library)?.arg(options.to_string())).with_context(|| format!("{library} by {way}"))?;
    }
    // librdkafka keeps a certificate to itself that the node says it would not trust.
    let shown = |reason: &str| library != "librdkafka" || reason != "UnknownIssuer";
    for (way, change, reason) in
        wrong_ways(&secured)?.into_iter().filter(|(way, _, reason)| known(way) && shown(reason))
    {
        let mut options = secured.options(library, way, "never")?;
        options["fails"] = true.into();
        change.into_iter().for_each(|(name, value)| options[name] = value);
        let output = program(library)?.arg(options.to_string()).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(3), "{library} by {way} was let in: {printed}");
        eventually(&format!("{library} by {way} is refused because of {reason}"), || {
            Ok(secured.node.printed().contains(reason).then_some(()))
        })?;
    }
    let printed = secured.node.printed();
    for secret in PASSWORDS {
        ensure!(!printed.contains(secret), "{secret} is in the node's log");
    }
    secured.node.stop()
}

type WrongWay = (&'static str, Vec<(&'static str, Value)>, &'static str);

/// Whoever must not get in, and what the node's log says of it.
fn wrong_ways(secured: &Secured) -> Result<Vec<WrongWay>> {
    let files = |identity: &Identity| {
        let text = |path: &PathBuf| Value::from(path.display().to_string());
        vec![("certificate", text(&identity.certificate)), ("key", text(&identity.key))]
    };
    Ok(vec![
        ("SASL_PLAINTEXT PLAIN", vec![("password", "wrong".into())], "Invalid username or password"),
        ("SASL_SSL SCRAM-SHA-512", vec![("password", "wrong".into())], "SCRAM-SHA-512: the password is another one"),
        ("SASL_PLAINTEXT SCRAM-SHA-256", vec![("user", "nobody".into())], "there is no such user"),
        ("SASL_PLAINTEXT OAUTHBEARER", vec![("token", secured.token(-60)?.into())], ""),
        ("mTLS", files(&secured.expired), "certificate expired"),
        ("mTLS", files(&secured.stranger), "UnknownIssuer"),
    ])
}

#[test]
fn librdkafka_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("librdkafka")
}

#[test]
fn kafka_python_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("kafka-python")
}

#[test]
fn aiokafka_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("aiokafka")
}

#[test]
fn kafkajs_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("kafkajs")
}

#[test]
fn franz_go_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("franz-go")
}

#[test]
fn sarama_gets_in_by_every_way_that_it_knows() -> Result<()> {
    gets_in("sarama")
}

/// A shell tool of Kafka with a client's properties.
fn tool(secured: &Secured, name: &str, arguments: &[&str], properties: &str) -> Result<std::process::Output> {
    let file = secured.folder.path().join("client.properties");
    let trust = secured.authority.certificate.display();
    fs::write(&file, format!("ssl.truststore.type=PEM\nssl.truststore.location={trust}\n{properties}"))?;
    let bootstrap = secured.node.listener("SASL_SSL")?.to_string();
    let mut command = Command::new("timeout");
    command.arg("600").arg(tools::program(name)?.get_program());
    command.args(["--bootstrap-server", &bootstrap, "--command-config"]).arg(&file).args(arguments);
    command.output().with_context(|| format!("starting {name}"))
}

fn succeeds(output: std::process::Output) -> Result<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{stdout}\n{stderr}");
    Ok(stdout.into_owned())
}

fn scram(user: &str, password: &str, more: &str) -> String {
    format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{user}\" password=\"{password}\"{more};\n"
    )
}

#[test]
fn kafkas_tools_make_users_and_tokens_and_nothing_tells_a_secret() -> Result<()> {
    let secured = Secured::start()?;
    let alice = scram("alice", PASSWORDS[1], "");
    let bob = ["--alter", "--entity-type", "users", "--entity-name", "bob", "--add-config"];
    let password = "SCRAM-SHA-256=[iterations=8192,password=bobs-hunter2]";
    let made = succeeds(tool(&secured, "kafka-configs.sh", &[&bob[..], &[password]].concat(), &alice)?)?;
    ensure!(made.contains("Completed updating config for user bob."), "{made}");

    let tokens = "kafka-delegation-tokens.sh";
    let create = ["--create", "--max-life-time-period", "-1", "--renewer-principal", "User:alice"];
    let made = succeeds(tool(&secured, tokens, &create, &scram("bob", "bobs-hunter2", ""))?)?;
    let row = made.lines().rfind(|line| line.contains("User:bob")).with_context(|| made.clone())?;
    let (id, hmac) = row.split_once(' ').context("a token has an id and a password")?;
    let hmac = hmac.split_whitespace().next().context("a token has a password")?;
    let by_token = scram(id, hmac, " tokenauth=\"true\"");
    succeeds(tool(&secured, "kafka-topics.sh", &["--create", "--topic", "by-token"], &by_token)?)?;
    let refused = tool(&secured, tokens, &create, &by_token)?;
    let refused = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    ensure!(refused.contains("Delegation Token requests are not allowed"), "{refused}");
    let renew = ["--renew", "--renew-time-period", "-1", "--hmac", hmac];
    let renewed = succeeds(tool(&secured, tokens, &renew, &alice)?)?;
    ensure!(renewed.contains("Completed renew operation"), "{renewed}");
    let expire = ["--expire", "--expiry-time-period", "-1", "--hmac", hmac];
    let expired = succeeds(tool(&secured, tokens, &expire, &alice)?)?;
    ensure!(expired.contains("Completed expire operation"), "{expired}");
    let gone = tool(&secured, "kafka-topics.sh", &["--list"], &by_token)?;
    let gone = format!("{}{}", String::from_utf8_lossy(&gone.stdout), String::from_utf8_lossy(&gone.stderr));
    ensure!(gone.contains("due to invalid credentials with SASL mechanism SCRAM-SHA-256"), "{gone}");

    let taken = ["--alter", "--entity-type", "users", "--entity-name", "bob", "--delete-config", "SCRAM-SHA-256"];
    succeeds(tool(&secured, "kafka-configs.sh", &taken, &alice)?)?;
    let gone = tool(&secured, "kafka-topics.sh", &["--list"], &scram("bob", "bobs-hunter2", ""))?;
    ensure!(!gone.status.success(), "a user who is gone gets in");

    let describe = ["--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"];
    let described = succeeds(tool(&secured, "kafka-configs.sh", &describe, &alice)?)?;
    ensure!(described.contains("delegation.token.secret.key=null sensitive=true"), "{described}");
    let metrics = secured.node.http_get("/metrics")?;
    ensure!(metrics.contains("varve_authentications_total{listener=\"SASL_SSL\",result=\"failed\"} "), "{metrics}");
    let files = everything_in(&secured.folder.path().join("varve-data"))?;
    let printed = secured.node.printed();
    for secret in PASSWORDS.into_iter().chain(["bobs-hunter2", hmac]) {
        for (place, text) in [("metrics", &metrics), ("log", &printed), ("description", &described)] {
            ensure!(!text.contains(secret), "{secret} is in the {place}");
        }
        for (file, bytes) in &files {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{secret} is in {}", file.display());
        }
    }
    secured.node.stop()
}

fn everything_in(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(everything_in(&path)?),
            false => match fs::read(&path) {
                Ok(bytes) => files.push((path, bytes)),
                // The node goes on working: what it has deleted meanwhile tells nobody anything.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    Ok(files)
}

#[test]
fn keystores_of_keytool_are_read_and_old_ones_refused_with_the_way_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keystore = |kind: &str, algorithm: &str| -> Result<PathBuf> {
        let path = folder.path().join(format!("{kind}-{algorithm}"));
        let mut command = Command::new("keytool");
        command.args(["-genkeypair", "-alias", "broker", "-keyalg", algorithm, "-dname", "CN=localhost"]);
        command.args(["-ext", "SAN=dns:localhost,ip:127.0.0.1", "-storepass", "hunter2hunter2", "-storetype", kind]);
        tools::output_of(command.args(["-keypass", "hunter2hunter2", "-keystore"]).arg(&path))?;
        Ok(path)
    };
    let settings = |path: &Path| {
        [
            "listeners=PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0".to_owned(),
            format!("ssl.keystore.location={}", path.display()),
            "ssl.keystore.password=hunter2hunter2".to_owned(),
        ]
    };
    for algorithm in ["RSA", "EC"] {
        let pkcs12 = settings(&keystore("PKCS12", algorithm)?);
        let node = Node::start(folder.path(), &pkcs12.each_ref().map(String::as_str)).context(algorithm)?;
        let address = node.listener("SSL")?.to_string();
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &address]).stdin(std::process::Stdio::null());
        let shown = tools::output_of(&mut client)?;
        ensure!(shown.contains("CN=localhost") || shown.contains("CN = localhost"), "{algorithm}: {shown}");
        node.stop()?;
    }
    let jks = settings(&keystore("JKS", "RSA")?);
    let refused = Node::start(folder.path(), &jks.each_ref().map(String::as_str)).err().context("JKS was read")?;
    let refused = format!("{refused:?}");
    ensure!(refused.contains("keytool -importkeystore"), "{refused}");
    ensure!(!refused.contains("hunter2hunter2"), "{refused}");
    Ok(())
}
