//! Who somebody is, asked on a listener that asks nobody: SASL out of place, delegation tokens, SCRAM users.

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, CreateDelegationTokenRequest, DescribeDelegationTokenRequest,
    DescribeUserScramCredentialsRequest, ExpireDelegationTokenRequest, RenewDelegationTokenRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest,
    alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
    describe_user_scram_credentials_request::UserName,
};
use varve_tests::differential::Pair;

use super::request::{text, versions};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    pair.ask("sasl-handshake", &versions(0, 1), |_, _| SaslHandshakeRequest::default().with_mechanism(text("PLAIN")))?;
    pair.ask("sasl-authenticate", &versions(0, 2), |_, _| {
        SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0ann\0secret"))
    })?;
    pair.ask("token-create", &versions(1, 3), |_, _| CreateDelegationTokenRequest::default().with_max_lifetime_ms(-1))?;
    pair.ask("token-renew", &versions(1, 2), |_, _| {
        RenewDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"none")).with_renew_period_ms(1000)
    })?;
    pair.ask("token-expire", &versions(1, 2), |_, _| {
        ExpireDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"none")).with_expiry_time_period_ms(1000)
    })?;
    pair.ask("token-describe", &versions(1, 3), |_, _| DescribeDelegationTokenRequest::default().with_owners(None))?;
    let described = |users: Option<&[&str]>| {
        let users = users.map(|users| users.iter().map(|user| UserName::default().with_name(text(user))).collect());
        DescribeUserScramCredentialsRequest::default().with_users(users)
    };
    pair.ask("scram-describe", &[0], |_, _| described(None))?;
    pair.ask("scram-describe-nobody", &[0], |_, _| described(Some(&["nobody"])))?;
    pair.ask("scram-describe-twice", &[0], |_, _| described(Some(&["nobody", "nobody"])))?;
    pair.ask("scram-delete-nobody", &[0], |_, _| {
        let nobody = ScramCredentialDeletion::default().with_name(text("nobody")).with_mechanism(1);
        AlterUserScramCredentialsRequest::default().with_deletions(vec![nobody])
    })?;
    pair.ask("scram-few-iterations", &[0], |_, _| {
        let ann = ScramCredentialUpsertion::default()
            .with_name(text("ann"))
            .with_mechanism(1)
            .with_iterations(10)
            .with_salt(Bytes::from_static(b"salt"))
            .with_salted_password(Bytes::from_static(b"password"));
        AlterUserScramCredentialsRequest::default().with_upsertions(vec![ann])
    })?;
    Ok(())
}
