//! An identity provider: it knows clients by id and secret, and gives them tokens of a short life (RFC 6749, section 4.4).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;

/// The most that is read of a request's body, in bytes.
const LARGEST: usize = 1 << 16;

/// A running provider. Its thread ends with the test process.
pub struct IdentityProvider {
    address: SocketAddr,
    given: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl IdentityProvider {
    /// Starts it on a free loopback port, for `clients` by id, with their secrets. Tokens live for `life_s` seconds. Its keys are
    /// written to `keys`, as a set of JSON.
    ///
    /// # Errors
    /// No port is free, or the file cannot be written.
    pub fn start(keys: &Path, clients: BTreeMap<String, String>, life_s: u64) -> Result<IdentityProvider> {
        let pair = KeyPair::generate()?;
        let point = pair.der_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        fs::write(keys, json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y}]}).to_string())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, given) = (listener.local_addr()?, Arc::new(Mutex::default()));
        let (counts, key) = (Arc::clone(&given), EncodingKey::from_ec_der(&pair.serialize_der()));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Who leaves early is not answered.
                let _ = answer(connection, &clients, &key, life_s, &counts);
            }
        });
        Ok(IdentityProvider { address, given })
    }

    /// Where tokens are given out.
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// How many tokens a client was given.
    pub fn given_to(&self, client: &str) -> usize {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(client).copied().unwrap_or_default()
    }
}

fn answer(
    mut connection: TcpStream,
    clients: &BTreeMap<String, String>,
    key: &EncodingKey,
    life_s: u64,
    given: &Mutex<BTreeMap<String, usize>>,
) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut request, mut basic, mut length) = (String::new(), None, 0);
    reader.read_line(&mut request)?;
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => basic = value.trim().strip_prefix("Basic ").map(str::to_owned),
            "content-length" => length = value.trim().parse::<usize>()?.min(LARGEST),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let shown = basic.and_then(|basic| String::from_utf8(STANDARD.decode(basic).ok()?).ok());
    let client = shown.as_deref().and_then(|shown| {
        let (id, secret) = shown.split_once(':')?;
        (clients.get(id).map(String::as_str) == Some(secret)).then_some(id)
    });
    let is_asked = request.starts_with("POST /token ") && body == b"grant_type=client_credentials&scope=kafka";
    let (status, body) = match client {
        _ if !is_asked => ("400 Bad Request", json!({"error": "invalid_request"})),
        None => {
            let told = format!("{} is not known", shown.unwrap_or_default());
            ("401 Unauthorized", json!({"error": "invalid_client", "error_description": told}))
        }
        Some(client) => {
            *given.lock().unwrap_or_else(PoisonError::into_inner).entry(client.to_owned()).or_default() += 1;
            let now = UNIX_EPOCH.elapsed()?.as_secs();
            let claims = json!({"sub": client, "aud": "kafka", "iat": now, "exp": now + life_s});
            let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
            let token = encode(&header, &claims, key).context("a token")?;
            ("200 OK", json!({"access_token": token, "token_type": "Bearer", "expires_in": life_s}))
        }
    };
    let body = body.to_string();
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    Ok(())
}
