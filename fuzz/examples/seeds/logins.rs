//! What clients say of themselves before they are known, and the settings that it is held against.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{digest, hmac, signature::Ed25519KeyPair};
use varve_fuzz::{
    certificate::relative_name,
    input::{Piece, join},
    login::{NONCE, NOW_MS, PASSWORD, ROUNDS, SALT, SALTED_PASSWORD, TOKEN_KEY, USER},
};

use crate::Seeds;

/// Places in `Mechanism::ALL`, and the flag of unsigned tokens.
const PLAIN: u8 = 0;
const SCRAM_SHA_256: u8 = 1;
const OAUTHBEARER: u8 = 3;
const UNSIGNED: u8 = 4;

/// Logins that succeed, by every mechanism.
pub(crate) fn messages() -> Seeds {
    let mut seeds = vec![seed("plain", PLAIN, &[&format!("\0{USER}\0{PASSWORD}")])];
    for (name, tokens) in [("scram", ""), ("scram-token", ",tokenauth=true")] {
        seeds.push(scram(name, tokens));
    }
    let claims = format!(
        r#"{{"sub":"{USER}","aud":["kafka"],"scope":"a b","iat":{issued},"nbf":{issued},"exp":{end}.5}}"#,
        issued = NOW_MS / 1000,
        end = NOW_MS / 1000 + 3600
    );
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(r#"{"alg":"EdDSA","typ":"JWT","kid":"k"}"#), part(&claims));
    let key = Ed25519KeyPair::from_seed_unchecked(&TOKEN_KEY).expect("32 bytes are a seed");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    let bearer = |token: &str| format!("n,a={USER},\u{1}auth=Bearer {token}\u{1}traceId=x\u{1}\u{1}");
    seeds.push(seed("signed-token", OAUTHBEARER, &[&bearer(&format!("{signed}.{signature}"))]));
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
    seeds.push(seed("unsigned-token", OAUTHBEARER | UNSIGNED, &[&bearer(&unsigned)]));
    seeds.push(seed("bad-token", OAUTHBEARER, &[&bearer(&unsigned), "\u{1}"]));
    seeds
}

fn seed(name: &str, flags: u8, messages: &[&str]) -> (String, Vec<u8>) {
    let pieces: Vec<_> = messages.iter().map(|text| Piece { kind: 0, bytes: text.as_bytes() }).collect();
    (name.to_owned(), [&[flags], join(&pieces).as_slice()].concat())
}

fn scram(name: &str, extension: &str) -> (String, Vec<u8>) {
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let bare = format!("n={USER},r=theirs{extension}");
    let ours = format!("r=theirs{NONCE},s={},i={ROUNDS}", STANDARD.encode(SALT));
    let without_proof = format!("c=biws,r=theirs{NONCE}");
    let client_key = sign(&SALTED_PASSWORD, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let signature = sign(stored_key.as_ref(), format!("{bare},{ours},{without_proof}").as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
    let last = format!("{without_proof},p={}", STANDARD.encode(proof));
    seed(name, SCRAM_SHA_256, &[&format!("n,,{bare}"), &last])
}

pub(crate) fn login_configurations() -> Seeds {
    let users = "org.apache.kafka.common.security.plain.PlainLoginModule required\n    username=\"broker\" \
                 user_alice=\"alice-\\\"secret\\101\" /* nobody */ user_bob='b';";
    let several =
        "a.ScramLoginModule optional; // and\nb.OAuthBearerLoginModule REQUIRED unsecuredLoginStringClaim_sub=x;";
    [("users", users), ("several", several)].map(|(name, text)| (name.to_owned(), text.into())).into()
}

pub(crate) fn mappings() -> Seeds {
    let rules = "RULE:^CN=(?<name>.*?),OU=(\\w+).*$/${name}@$2\\/x/L, DEFAULT\nCN=Alice,OU=users,O=Example";
    vec![("rules".to_owned(), rules.into())]
}

/// Subjects without the certificate around them: names with a keyword, in each kind of text, and without.
pub(crate) fn subjects() -> Seeds {
    const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
    const EMAIL: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
    let names = [
        relative_name(&COMMON_NAME, 0x0c, " al\u{f8}ce, +=\0#; ".as_bytes()),
        relative_name(&COMMON_NAME, 0x1e, &[0, b'a', 0xd8, 0]),
        relative_name(&COMMON_NAME, 0x14, &[0xe9]),
        relative_name(&EMAIL, 0x16, b"alice@example.com"),
    ];
    vec![("names".to_owned(), [&[1], names.concat().as_slice()].concat())]
}
