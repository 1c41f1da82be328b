//! DescribeUserScramCredentials (KIP-554): who has a password in which mechanism, and never the password.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::{CredentialInfo, DescribeUserScramCredentialsResult},
    },
    protocol::StrBytes,
};
use varve_metadata::{image::ClusterImage, model::ScramMechanism};

use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    if let Err(refused) = broker.access(context).require(Operation::Describe, Resource::Cluster) {
        return DescribeUserScramCredentialsResponse::default()
            .with_error_code(refused.code())
            .with_error_message(Some(StrBytes::from_static_str(Resource::Cluster.refusal_text())));
    }
    let image = broker.metadata.image();
    let asked = request.users.unwrap_or_default();
    // How often each is named; nobody named means everybody.
    let mut users: BTreeMap<StrBytes, usize> = BTreeMap::new();
    match asked.is_empty() {
        true => image.scram_credentials().keys().for_each(|(_, user)| {
            users.insert(StrBytes::from_string(user.clone()), 1);
        }),
        false => asked.into_iter().for_each(|user| *users.entry(user.name).or_default() += 1),
    }
    let results = users.into_iter().map(|(user, times)| described(&image, user, times));
    DescribeUserScramCredentialsResponse::default().with_results(results.collect())
}

fn described(image: &ClusterImage, user: StrBytes, times: usize) -> DescribeUserScramCredentialsResult {
    let refused = |error: ResponseError, text: &str| {
        DescribeUserScramCredentialsResult::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(format!("{text}{user}"))))
    };
    let result = if times > 1 {
        let text = "Cannot describe SCRAM credentials for the same user twice in a single request: ";
        refused(ResponseError::DuplicateResource, text)
    } else {
        let known = ScramMechanism::ALL.into_iter().filter_map(|mechanism| {
            let credential = image.scram_credential(mechanism, &user)?;
            let iterations = i32::try_from(credential.iterations).unwrap_or(i32::MAX);
            Some(CredentialInfo::default().with_mechanism(mechanism.to_wire()).with_iterations(iterations))
        });
        let known: Vec<CredentialInfo> = known.collect();
        match known.is_empty() {
            true => {
                let text = "Attempt to describe a user credential that does not exist: ";
                refused(ResponseError::ResourceNotFound, text)
            }
            false => DescribeUserScramCredentialsResult::default().with_credential_infos(known),
        }
    };
    result.with_user(user)
}
