//! Offers and answers of one audio stream: made, and read with plain line splitting.

use std::net::{Ipv4Addr, SocketAddr};

/// How a phone likes to write its SDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// `c=` below the `m=` line instead of above it.
    pub(super) media_level: bool,
    /// `a=rtcp` although it is the next port.
    pub(super) rtcp_line: bool,
}

/// What an SDP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) origin: Ipv4Addr,
    pub(super) rtp: SocketAddr,
    pub(super) rtcp: SocketAddr,
}

/// A body that invites RTP (PCMA) to `rtp`, and RTCP to the next port.
pub(super) fn compose(rtp: SocketAddr, session: u32, style: Style) -> String {
    let address = rtp.ip();
    let connection = format!("c=IN IP4 {address}\r\n");
    let (session_level, media_level) = match style.media_level {
        true => ("", connection.as_str()),
        false => (connection.as_str(), ""),
    };
    let rtcp = match style.rtcp_line {
        true => format!("a=rtcp:{} IN IP4 {address}\r\n", rtp.port().saturating_add(1)),
        false => String::new(),
    };
    format!(
        "v=0\r\no=- {session} 1 IN IP4 {address}\r\ns=-\r\n{session_level}t=0 0\r\n\
         m=audio {port} RTP/AVP 8\r\n{media_level}a=rtpmap:8 PCMA/8000\r\n{rtcp}a=sendrecv\r\n",
        port = rtp.port()
    )
}

/// Reads a body that has one audio stream. The last `c=` counts: it is the media level's if there is one.
pub(super) fn read(body: &str) -> Option<Offer> {
    let lines = || body.lines();
    let origin = lines().find_map(|line| line.strip_prefix("o="))?.rsplit(' ').next()?.parse().ok()?;
    let address: Ipv4Addr =
        lines().filter_map(|line| line.strip_prefix("c=IN IP4 ")).next_back()?.trim().parse().ok()?;
    let port: u16 =
        lines().find_map(|line| line.strip_prefix("m=audio "))?.split(' ').next()?.parse().ok()?;
    let rtp = SocketAddr::from((address, port));
    let rtcp = match lines().find_map(|line| line.strip_prefix("a=rtcp:")) {
        Some(line) => {
            let mut words = line.split(' ');
            let port: u16 = words.next()?.parse().ok()?;
            let own = words.next_back().map(str::parse::<Ipv4Addr>);
            SocketAddr::from((own.transpose().ok()?.unwrap_or(address), port))
        }
        None => SocketAddr::from((address, port.checked_add(1)?)),
    };
    Some(Offer { origin, rtp, rtcp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_says_the_same() {
        let rtp = "192.168.1.10:40000".parse().unwrap();
        let said = Offer {
            origin: Ipv4Addr::new(192, 168, 1, 10),
            rtp,
            rtcp: "192.168.1.10:40001".parse().unwrap(),
        };
        for media_level in [false, true] {
            for rtcp_line in [false, true] {
                let body = compose(rtp, 1, Style { media_level, rtcp_line });
                assert_eq!(read(&body), Some(said), "{body}");
            }
        }
        assert_eq!(read("v=0\r\n"), None);
    }
}
