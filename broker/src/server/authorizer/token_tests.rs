//! Rights over users: to make delegation tokens for them, and to see theirs (KIP-373).

use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
};

use super::{
    tests::{STANDARD, allow, context},
    *,
};
use crate::{
    security::SecurityProtocol,
    server::{
        Limits,
        handlers::{create_delegation_token, describe_delegation_token},
        testing::TestNode,
    },
};

const BOB: Resource<'static> = Resource::User("User:bob");

/// Somebody who has logged in, with the newest version of the requests.
fn user(name: &str) -> RequestContext {
    RequestContext { protocol: SecurityProtocol::SaslPlaintext, api_version: 3, ..context(name) }
}

async fn node() -> TestNode {
    TestNode::start_configured(Limits::default(), &[STANDARD, "delegation.token.secret.key=s"]).await
}

async fn make(node: &TestNode, by: &str, owner: Option<&'static str>) -> CreateDelegationTokenResponse {
    let request = CreateDelegationTokenRequest::default()
        .with_owner_principal_type(owner.map(|_| "User".into()))
        .with_owner_principal_name(owner.map(Into::into))
        .with_max_lifetime_ms(-1);
    create_delegation_token::handle(&node.broker, &user(by), request).await
}

/// How many tokens `name` is shown.
async fn shown(node: &TestNode, name: &str) -> usize {
    let request = DescribeDelegationTokenRequest::default().with_owners(None);
    let answer = describe_delegation_token::handle(&node.broker, &user(name), request).await;
    assert_eq!(answer.error_code, 0);
    answer.tokens.len()
}

#[tokio::test]
async fn a_token_for_somebody_else_takes_the_right_to_make_tokens_for_that_user() {
    let node = node().await;
    assert_eq!(make(&node, "bob", None).await.error_code, 0, "for oneself it takes none");
    let denied = ResponseError::DelegationTokenAuthorizationFailed.code();
    assert_eq!(make(&node, "alice", Some("bob")).await.error_code, denied);
    allow(&node, "User:alice", BOB, Operation::DescribeTokens).await;
    assert_eq!(make(&node, "alice", Some("bob")).await.error_code, denied, "that is another right");
    allow(&node, "User:alice", BOB, Operation::CreateTokens).await;
    let made = make(&node, "alice", Some("bob")).await;
    assert_eq!((made.error_code, made.principal_name.as_str()), (0, "bob"));
    assert_eq!(made.token_requester_principal_name.as_str(), "alice");
    assert_eq!(make(&node, "alice", Some("carol")).await.error_code, denied, "over somebody else");
}

#[tokio::test]
async fn tokens_of_others_are_shown_to_those_who_may_see_that_users_or_that_token() {
    let node = node().await;
    let (first, second) = (make(&node, "bob", None).await, make(&node, "bob", None).await);
    assert_eq!((first.error_code, second.error_code), (0, 0));
    assert_eq!(shown(&node, "bob").await, 2);
    for (name, resource, operation, expected) in [
        ("alice", BOB, Operation::CreateTokens, 0),
        ("alice", Resource::User("User:carol"), Operation::DescribeTokens, 0),
        ("alice", BOB, Operation::DescribeTokens, 2),
        ("carol", Resource::DelegationToken(&second.token_id), Operation::Describe, 1),
    ] {
        allow(&node, &format!("User:{name}"), resource, operation).await;
        assert_eq!(shown(&node, name).await, expected, "{name} with {operation:?} on {resource:?}");
    }
}
