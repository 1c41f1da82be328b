//! Compose files as a container engine reads them, and what the containers of varve get. There is no container engine here:
//! what a container would run is run outside of it, with the same arguments and environment.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tools;

/// What builds the image of varve.
pub const DOCKERFILE: &str = "deploy/container/Dockerfile";

/// The compose file at `path` (as in the checkout), with its merges resolved.
///
/// # Errors
/// It is not there, or does not keep to the compose specification.
pub fn read(path: &str) -> Result<Value> {
    const CHECK: &str = "import sys, compose_spec\ncompose_spec.PyCompose.from_json(sys.stdin.read()).validate()";
    let text = fs::read_to_string(tools::checkout().join(path)).with_context(|| path.to_owned())?;
    let file = tools::yaml(&text)?.into_iter().next().context("a document")?;
    tools::output_of_fed(tools::deploy("python")?.args(["-c", CHECK]), &file.to_string())
        .with_context(|| path.to_owned())?;
    Ok(file)
}

/// The services of a compose file, by name.
///
/// # Errors
/// It has none.
pub fn services(file: &Value) -> Result<Vec<(&str, &Value)>> {
    Ok(file["services"].as_object().context("services")?.iter().map(|(name, one)| (name.as_str(), one)).collect())
}

/// The image of a service, where it is not built: of `${NAME:-image}` the image that is meant unless somebody says otherwise.
pub fn image(service: &Value) -> Option<&str> {
    let image = service["image"].as_str().filter(|_| service["build"].is_null())?;
    let default = image.strip_prefix("${").and_then(|named| named.split_once(":-")?.1.strip_suffix('}'));
    Some(default.unwrap_or(image))
}

/// The Dockerfile of a service of the compose file at `path`; `None` for one that is not built, or written in place.
pub fn dockerfile(path: &str, service: &Value) -> Option<PathBuf> {
    let place = tools::checkout().join(path).parent()?.join(service["build"]["context"].as_str()?);
    place.join(service["build"]["dockerfile"].as_str()?).canonicalize().ok()
}

/// What is set in the image of varve.
///
/// # Errors
/// The Dockerfile is not there, or its last stage sets nothing.
pub fn image_environment() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(tools::checkout().join(DOCKERFILE))?.replace("\\\n", " ");
    let (_, last) = text.rsplit_once("\nFROM ").context("a stage")?;
    let variables = last.lines().find_map(|line| line.strip_prefix("ENV ")).context("ENV")?;
    let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// What a container of varve has in its environment: the service's over the image's.
///
/// # Errors
/// Something in it is no text.
pub fn environment(service: &Value) -> Result<BTreeMap<String, String>> {
    let mut all = image_environment()?;
    for (name, value) in service["environment"].as_object().into_iter().flatten() {
        all.insert(name.clone(), value.as_str().with_context(|| format!("{name} is text"))?.to_owned());
    }
    Ok(all)
}

/// The arguments of varve with which a container is asked how it is; `None` for a service that is not asked.
///
/// # Errors
/// It is asked by something else.
pub fn health_check(service: &Value) -> Result<Option<Vec<String>>> {
    if service["healthcheck"]["disable"] == true {
        return Ok(None);
    }
    let test: Vec<String> = serde_json::from_value(service["healthcheck"]["test"].clone()).context("a health check")?;
    ensure!(test.len() > 2 && test[..2] == ["CMD", "/usr/bin/varve"], "{test:?}");
    Ok(Some(test[2..].to_vec()))
}
