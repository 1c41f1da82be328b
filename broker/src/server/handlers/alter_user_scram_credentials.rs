//! AlterUserScramCredentials (KIP-554): sets and takes away passwords. The client has hashed them; of what it sends only keys
//! are kept.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
    },
    protocol::StrBytes,
};
use varve_metadata::{controller::ScramChange, image::ClusterImage, model::ScramMechanism};

use crate::{
    security::sasl::scram,
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        handlers::admin_errors::metadata_error,
    },
};

/// Kafka's error, and its words.
type Refusal = (ResponseError, String);

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let mut users: Vec<StrBytes> = Vec::new();
    let named = request.deletions.iter().map(|one| &one.name).chain(request.upsertions.iter().map(|one| &one.name));
    named.for_each(|name| {
        if !users.contains(name) {
            users.push(name.clone());
        }
    });
    let mut outcomes = match broker.access(context).require(Operation::Alter, Resource::Cluster) {
        Ok(()) => alter(broker, request).await,
        Err(refused) => {
            let refused = (refused, Resource::Cluster.refusal_text().to_owned());
            users.iter().map(|user| (user.clone(), Err(refused.clone()))).collect()
        }
    };
    let results = users.into_iter().map(|user| {
        let outcome = outcomes.remove(&user).unwrap_or(Ok(()));
        let result = AlterUserScramCredentialsResult::default().with_user(user);
        match outcome {
            Ok(()) => result,
            Err((error, text)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
            }
        }
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

/// What becomes of each user.
async fn alter(broker: &Broker, request: AlterUserScramCredentialsRequest) -> BTreeMap<StrBytes, Result<(), Refusal>> {
    let image = broker.metadata.image();
    let mut decided: BTreeMap<StrBytes, Result<ScramChange, Refusal>> = BTreeMap::new();
    let deletions = request.deletions.into_iter().map(|one| (one.name.clone(), deletion(&image, &one)));
    let upsertions = request.upsertions.into_iter().map(|one| (one.name.clone(), upsertion(&one)));
    for (user, change) in deletions.chain(upsertions) {
        let twice = "A user credential cannot be altered twice in the same request";
        match decided.get(&user) {
            // The first error stays.
            Some(Err(_)) => {}
            Some(Ok(_)) => {
                decided.insert(user, Err((ResponseError::DuplicateResource, twice.to_owned())));
            }
            None => {
                decided.insert(user, change);
            }
        }
    }
    let changes: Vec<ScramChange> = decided.values().filter_map(|change| change.as_ref().ok()).cloned().collect();
    let written = match changes.is_empty() {
        true => Ok(Vec::new()),
        false => broker.metadata.alter_scram_credentials(&changes).await,
    };
    let mut made = match written {
        Ok(made) => Ok(made.into_iter()),
        Err(error) => Err(metadata_error(&error)),
    };
    let mut outcome = |change: Result<ScramChange, Refusal>| {
        change?;
        match made.as_mut().map(Iterator::next) {
            Ok(Some(true) | None) => Ok(()),
            // Taken away by somebody else meanwhile.
            Ok(Some(false)) => Err(unknown()),
            Err((error, text)) => Err((*error, text.clone())),
        }
    };
    decided.into_iter().map(|(user, change)| (user, outcome(change))).collect()
}

fn unknown() -> Refusal {
    (ResponseError::ResourceNotFound, "Attempt to delete a user credential that does not exist".to_owned())
}

fn mechanism(user: &str, number: i8) -> Result<ScramMechanism, Refusal> {
    if user.is_empty() {
        return Err((ResponseError::UnacceptableCredential, "Username must not be empty".to_owned()));
    }
    let unknown = || (ResponseError::UnsupportedSaslMechanism, "Unknown SCRAM mechanism".to_owned());
    ScramMechanism::from_wire(number).ok_or_else(unknown)
}

fn deletion(image: &ClusterImage, deletion: &ScramCredentialDeletion) -> Result<ScramChange, Refusal> {
    let mechanism = mechanism(&deletion.name, deletion.mechanism)?;
    if image.scram_credential(mechanism, &deletion.name).is_none() {
        return Err(unknown());
    }
    Ok(ScramChange { user: deletion.name.to_string(), mechanism, credential: None })
}

fn upsertion(upsertion: &ScramCredentialUpsertion) -> Result<ScramChange, Refusal> {
    let mechanism = mechanism(&upsertion.name, upsertion.mechanism)?;
    let unacceptable = |text: &str| Err((ResponseError::UnacceptableCredential, text.to_owned()));
    let iterations = match u32::try_from(upsertion.iterations) {
        Ok(number) if number > ScramMechanism::MAX_ITERATIONS => return unacceptable("Too many iterations"),
        Ok(number) if number >= ScramMechanism::MIN_ITERATIONS => number,
        _ => return unacceptable("Too few iterations"),
    };
    let credential = scram::from_salted(mechanism, &upsertion.salted_password, upsertion.salt.to_vec(), iterations);
    Ok(ScramChange { user: upsertion.name.to_string(), mechanism, credential: Some(credential) })
}
