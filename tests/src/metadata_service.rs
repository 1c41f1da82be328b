//! EC2's metadata service for one instance (IMDSv2): what an instance asks who and where it is.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::Result;

const TOKEN: &str = "token-of-this-instance";

/// A running service. Its thread ends with the test process.
pub struct MetadataService {
    address: SocketAddr,
}

/// What it tells.
#[derive(Clone)]
pub struct Instance {
    /// The instance's id.
    pub id: String,
    /// Its availability zone.
    pub zone: String,
    /// Its private IPv4 address.
    pub address: String,
}

impl MetadataService {
    /// Starts it on a free loopback port.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(instance: Instance) -> Result<MetadataService> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Who leaves early is not answered.
                let _ = answer(connection, &instance);
            }
        });
        Ok(MetadataService { address })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(mut connection: TcpStream, instance: &Instance) -> Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut has_token = false;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        has_token |= line.eq_ignore_ascii_case(&format!("x-aws-ec2-metadata-token: {TOKEN}"));
    }
    let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token"] => ("200 OK", TOKEN),
        _ if !has_token => ("401 Unauthorized", ""),
        ["GET", "/latest/meta-data/instance-id"] => ("200 OK", instance.id.as_str()),
        ["GET", "/latest/meta-data/placement/availability-zone"] => ("200 OK", instance.zone.as_str()),
        ["GET", "/latest/meta-data/local-ipv4"] => ("200 OK", instance.address.as_str()),
        _ => ("404 Not Found", ""),
    };
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    Ok(())
}
