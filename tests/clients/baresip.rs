//! baresip: a whole telephone, with an audio file for a microphone and another for a loudspeaker.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use super::net::Namespace;
use super::proc::Proc;
use super::tone;
use super::wait;

/// Its settings: `baresip/config` with these names in it.
const CONFIG: &str = include_str!("baresip/config");
const ACCOUNT: &str = include_str!("baresip/accounts");

/// Port of its remote control.
const CONTROL: u16 = 4444;

/// A running baresip.
pub(crate) struct Baresip {
    proc: Proc,
    user: String,
    address: Ipv4Addr,
    namespace: Namespace,
    recordings: PathBuf,
}

impl Baresip {
    /// Starts the phone of `user`, who hums a tone of `frequency`, and waits until it is registered.
    pub(crate) fn start(namespace: &Namespace, user: &str, address: Ipv4Addr, frequency: f64) -> Self {
        Self::start_by(namespace, user, address, frequency, "udp")
    }

    /// As [`Baresip::start`], over this transport.
    pub(crate) fn start_by(
        namespace: &Namespace,
        user: &str,
        address: Ipv4Addr,
        frequency: f64,
        transport: &str,
    ) -> Self {
        let dir = namespace.files().join(user);
        let recordings = dir.join("recordings");
        fs::create_dir_all(&recordings).expect("the directory of a test is writable");
        let tone = dir.join("tone.wav");
        tone::write(&tone, frequency, 120).expect("the directory of a test is writable");
        let fill = |template: &str| {
            template
                .replace("%USER%", user)
                .replace("%TRANSPORT%", transport)
                .replace("%ADDRESS%", &address.to_string())
                .replace("%CONTROL%", &CONTROL.to_string())
                .replace("%TONE%", &tone.display().to_string())
                .replace("%RECORDINGS%", &recordings.display().to_string())
        };
        for (name, text) in
            [("config", fill(CONFIG)), ("accounts", fill(ACCOUNT)), ("contacts", String::new())]
        {
            fs::write(dir.join(name), text).expect("the directory of a test is writable");
        }
        let mut command = namespace.command("baresip");
        command.arg("-f").arg(&dir);
        let mut proc = namespace.spawn(user, command);
        proc.wait_for("200 OK () [1 binding]");
        Self { proc, user: user.to_owned(), address, namespace: namespace.clone(), recordings }
    }

    /// Calls `user`, and waits until the call is up.
    pub(crate) fn dial(&mut self, user: &str) {
        self.control("dial", &format!("sip:{user}@example.com"));
        self.proc.wait_for(&format!("Call established: sip:{user}@example.com"));
    }

    /// Waits until two seconds of a tone of `frequency` have been heard, and asserts that `other` never was.
    pub(crate) fn hears(&self, frequency: f64, other: f64) {
        let what = format!("{} to hear {frequency} Hz", self.user);
        let heard = wait::until(&what, || {
            let heard = self.heard();
            (tone::windows_of(frequency, &heard) >= 20).then_some(heard)
        });
        assert_eq!(tone::windows_of(other, &heard), 0, "{} heard {other} Hz too", self.user);
    }

    /// Puts the call on hold, or takes it back.
    pub(crate) fn hold(&mut self, on: bool) {
        self.control(if on { "hold" } else { "resume" }, "");
    }

    /// Waits until its own count says that sound comes in and goes out. (After a hold it records no more.)
    pub(crate) fn has_sound(&self, yes: bool) {
        wait::until(&format!("sound at {} to be {yes}", self.user), || {
            // The last of "audio=64000/63978 (bit/s)": out and in.
            let said = self.proc.output();
            let (_, rates) = said.rsplit_once("audio=")?;
            let (out, rest) = rates.split_once('/')?;
            let (into, _) = rest.split_once(' ')?;
            let rates: [u32; 2] = [out.parse().ok()?, into.parse().ok()?];
            rates.iter().all(|&rate| if yes { rate > 50_000 } else { rate < 1000 }).then_some(())
        });
    }

    /// Ends the call.
    pub(crate) fn hang_up(&mut self) {
        self.control("hangup", "");
        self.sees_the_end();
    }

    /// Waits until the call has ended, whoever ended it.
    pub(crate) fn sees_the_end(&mut self) {
        self.proc.wait_for("terminated (duration:");
    }

    /// What the loudspeaker has played so far.
    fn heard(&self) -> Vec<i16> {
        let entries = fs::read_dir(&self.recordings).expect("we made it").flatten().map(|entry| entry.path());
        let decoded = entries.filter(|path| path.to_string_lossy().ends_with("-dec.wav"));
        decoded.flat_map(|path| tone::read(&path)).collect()
    }

    /// One command, as a netstring with JSON in it.
    fn control(&self, command: &str, parameters: &str) {
        let stream = self.namespace.within(|| TcpStream::connect((self.address, CONTROL)));
        let message =
            serde_json::json!({ "command": command, "params": parameters, "token": command }).to_string();
        let mut stream = stream.expect("baresip is ready");
        write!(stream, "{}:{message},", message.len()).expect("baresip reads");
        // Closing at once could lose the command: the answer is awaited.
        let mut answer = [0; 4096];
        stream.set_read_timeout(Some(wait::LONG)).expect("a timeout above zero");
        let length = std::io::Read::read(&mut stream, &mut answer).expect("baresip answers");
        assert!(length > 0, "baresip closed its remote control");
    }
}
