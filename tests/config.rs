//! The configuration file: what is accepted, what is refused and how, and that the sample, the defaults and the README
//! say the same.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use sipalg::alg::{MediaLocal, MediaSource, OnFailure, Policy, Prefix};
use sipalg::config::{Backend, Config, LogTarget, Overload, Place, SAMPLE, User, keys};

fn refusal(text: &str) -> String {
    Config::parse(text).expect_err(text).to_string()
}

/// What `check` says, but for what depends on the machine that the test runs on.
fn warnings(config: &Config, file: Option<&Path>) -> Vec<String> {
    config.check(file).into_iter().filter(|warning| !warning.contains("ip_local_port_range")).collect()
}

/// The sample with every setting in force: one `# ` less wherever a comment holds TOML instead of a sentence.
fn sample_in_force() -> String {
    let known = keys::all();
    let mut inside_list = false;
    let mut lines = Vec::new();
    for line in SAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_setting = known.iter().any(|key| bare.starts_with(&format!("{} = ", key.name)));
        lines.push(if is_setting || inside_list { bare } else { line });
        inside_list = (inside_list || is_setting && bare.ends_with('[')) && bare != "]";
    }
    lines.join("\n")
}

#[test]
fn no_file_and_an_empty_file_are_the_defaults() {
    let config = Config::parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.policy, Policy::default());
    assert_eq!((&config.sip_ports[..], &config.tcp_ports[..]), (&[5060..=5060][..], &[5060..=5060][..]));
    assert_eq!((config.queue.backend, config.queue.base), (Backend::Netlink, 5060));
    assert_eq!((config.log.target, config.log.level.as_str()), (LogTarget::Auto, "info"));
    assert_eq!(warnings(&config, None), [""; 0]);
}

#[test]
fn the_sample_is_the_defaults_as_it_is() {
    assert_eq!(Config::parse(SAMPLE).unwrap(), Config::default());
}

#[test]
fn the_sample_is_the_defaults_without_its_comments_and_names_every_key() {
    let text = sample_in_force();
    assert_eq!(Config::parse(&text).unwrap(), Config::default());
    let table: toml::Table = text.parse().unwrap();
    for key in keys::all() {
        let section = if key.section.is_empty() { Some(&table) } else { table[&key.section].as_table() };
        let value = section
            .and_then(|s| s.get(&key.name))
            .unwrap_or_else(|| panic!("{} is not in the sample", key.path()));
        assert_eq!(value.to_string(), key.default, "{}", key.path());
    }
}

#[test]
fn every_key_reaches_the_settings() {
    let config = Config::parse(
        r#"
            on-failure = "drop"
            state-file = "/run/sipalg.state"
            user = "telephony"
            [sip]
            ports = [5060, "5070-5079"]
            tcp-ports = [5060, "5080-5081"]
            tcp-patience = "15s"
            servers = ["203.0.113.0/24"]
            registrars = ["203.0.113.7"]
            hands-off = ["2001:db8::/32"]
            [nat]
            advertise = ["198.51.100.1", "2001:db8::1"]
            [media]
            ports = "20000-20999"
            quarantine = "2m"
            source = "any"
            local = "hairpin"
            inactivity = "1h"
            pinhole-lifetime = "2h"
            half-open = "40s"
            denied-ports = [5060]
            inside-hosts = ["192.168.1.5"]
            accounting = false
            [queue]
            backend = "nfq"
            base = 100
            max-length = 500
            receive-buffer = "1MiB"
            overload = "pass"
            [limits]
            flows = 1
            transactions = 2
            calls = 3
            registrations = 4
            bindings = 5
            bindings-per-host = 6
            openings-per-minute = 7
            per-host = 9
            transactions-per-host = 10
            parked = 8
            connections = 11
            tcp-bytes = "12MiB"
            tcp-bytes-per-host = "13MiB"
            tcp-held = 14
            tcp-held-per-host = 15
            [control]
            socket = "none"
            [log]
            target = "stderr"
            level = "warn,sipalg::alg=debug"
        "#,
    )
    .unwrap();
    assert_eq!(config.sip_ports, [5060..=5060, 5070..=5079]);
    assert_eq!(config.tcp_ports, [5060..=5060, 5080..=5081]);
    let policy = &config.policy;
    assert_eq!(policy.servers, [Prefix { address: Ipv4Addr::new(203, 0, 113, 0).into(), bits: 24 }]);
    assert_eq!(policy.registrars, [Prefix { address: Ipv4Addr::new(203, 0, 113, 7).into(), bits: 32 }]);
    assert_eq!(policy.hands_off, [Prefix { address: "2001:db8::".parse().unwrap(), bits: 32 }]);
    let advertise: [std::net::IpAddr; 2] = ["198.51.100.1", "2001:db8::1"].map(|it| it.parse().unwrap());
    assert_eq!(policy.advertise, advertise);
    assert_eq!(policy.ports, 20000..=20999);
    assert_eq!(policy.quarantine, Duration::from_secs(120));
    assert_eq!(policy.media_source, MediaSource::Any);
    assert_eq!(policy.media_local, MediaLocal::Hairpin);
    assert_eq!(policy.media_inactivity, Duration::from_secs(3600));
    assert_eq!(policy.pinhole_lifetime, Duration::from_secs(7200));
    assert_eq!(policy.half_open, Duration::from_secs(40));
    assert_eq!(policy.denied_ports, [5060..=5060]);
    assert_eq!(policy.inside_hosts, [Prefix { address: Ipv4Addr::new(192, 168, 1, 5).into(), bits: 32 }]);
    assert_eq!(policy.on_failure, OnFailure::Drop);
    let limits = policy.limits;
    assert_eq!(
        [
            limits.flows,
            limits.transactions,
            limits.calls,
            limits.registrations,
            limits.bindings,
            limits.bindings_per_host
        ],
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!((limits.openings_per_minute, limits.parked), (7, 8));
    assert_eq!((limits.per_host, limits.transactions_per_host), (9, 10));
    assert_eq!([limits.connections, limits.tcp_bytes >> 20, limits.tcp_bytes_per_host >> 20], [11, 12, 13]);
    assert_eq!((limits.tcp_held, limits.tcp_held_per_host), (14, 15));
    assert_eq!(policy.tcp_patience, Duration::from_secs(15));
    assert_eq!(config.state_file, Place::At("/run/sipalg.state".into()));
    assert_eq!(config.user, User::Named("telephony".to_owned()));
    assert_eq!((config.control_socket, config.accounting), (Place::None, false));
    let queue = &config.queue;
    assert_eq!((queue.backend, queue.base, queue.max_length), (Backend::Nfq, 100, 500));
    assert_eq!((queue.receive_buffer, queue.overload), (1 << 20, Overload::Pass));
    assert_eq!((config.log.target, config.log.level.as_str()), (LogTarget::Stderr, "warn,sipalg::alg=debug"));
}

#[test]
fn what_tcp_may_have_fits_into_what_holds_it() {
    // The shell's, the ruleset's.
    let longest = Config::parse("[sip]\ntcp-patience = \"25s\"").unwrap().policy.tcp_patience;
    assert!(longest + Duration::from_secs(1) < sipalg::daemon::held::LIFETIME);
    let most = Config::parse("[limits]\nconnections = 131072\ntcp-held = 896").unwrap().policy.limits;
    let set_size = |name: &str| -> usize {
        let line = sipalg::kernel::ruleset::SHIPPED.lines().find(|line| line.contains(name)).unwrap();
        line.split("size ").nth(1).and_then(|rest| rest.split(';').next()).unwrap().parse().unwrap()
    };
    for family in [4, 6] {
        assert_eq!(set_size(&format!("map lines{family} ")), most.connections);
        assert_eq!(set_size(&format!("set followed{family} ")), 2 * most.connections);
    }
    assert!(most.tcp_held < sipalg::daemon::held::PACKETS);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one_and_its_line() {
    for (text, says) in [
        ("[media]\nprots = \"1-2\"", "line 2: unknown key \"prots\" in [media]; did you mean \"ports\"?"),
        (
            "\n[media]\nsource = \"any\"\npinhole_lifetime = \"1h\"",
            "line 4: unknown key \"pinhole_lifetime\" in [media]; did you mean \"pinhole-lifetime\"?",
        ),
        ("[medai]\nports = \"1-2\"", "line 1: unknown section \"medai\"; did you mean [media]?"),
        ("on-failur = \"drop\"", "line 1: unknown key \"on-failur\"; did you mean \"on-failure\"?"),
        ("[sip]\nbase = 7", "line 2: unknown key \"base\" in [sip]; \"base\" belongs into [queue]"),
        (
            "[log]\non-failure = \"drop\"",
            "line 2: unknown key \"on-failure\" in [log]; \"on-failure\" stands at the top of the file, before the first section",
        ),
        ("[log]\nxyzzy = 1", "line 2: unknown key \"xyzzy\" in [log]; there are: level, target"),
        (
            "media.qarantine = \"64s\"",
            "line 1: unknown key \"qarantine\" in [media]; did you mean \"quarantine\"?",
        ),
    ] {
        assert_eq!(refusal(text), says, "{text}");
    }
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_what_would() {
    for (text, says) in [
        (
            "[media]\n\nports = \"32767-16384\"",
            "line 3: \"32767-16384\" ends before it begins; did you mean \"16384-32767\"?",
        ),
        (
            "[media]\nports = \"10001-10100\"",
            "line 2: media.ports: must begin with an even port and end with an odd one, as RTP and RTCP go in pairs: \"10000-10101\"",
        ),
        (
            "[media]\nports = \"5000-5999\"",
            "line 2: media.ports: must not contain the signalling port 5060 of sip.ports",
        ),
        (
            "[media]\nports = \"1000-5001\"",
            "line 2: media.ports: must begin at 1024 or above; the ports below are for services",
        ),
        (
            "[media]\nquarantine = \"soon\"",
            "line 2: \"soon\" is not a duration; write it as \"90s\", \"15m\", \"1h\" or \"2d\"",
        ),
        ("[media]\nquarantine = \"0s\"", "line 2: media.quarantine: must be at least 1s"),
        (
            "[media]\nquarantine = 64",
            "line 2: invalid type: integer `64`, expected a duration in quotes, as \"90s\" or \"15m\"",
        ),
        (
            "[sip]\nservers = [\"sip.example.org\"]",
            "line 2: \"sip.example.org\" is not an address or a block of addresses; write it as \"192.168.0.0/16\" (names are not looked up)",
        ),
        ("[sip]\nports = []", "line 2: sip.ports: must name at least one port"),
        ("[sip]\nports = [70000]", "line 2: a port is a number from 1 to 65535"),
        ("[queue]\nbase = 65531", "line 2: queue.base: must be at most 65530: there are six queues"),
        (
            "[queue]\nmax-length = 0",
            "line 2: queue.max-length: must be between 16 and 65536; the kernel holds no more",
        ),
        (
            "[queue]\nreceive-buffer = \"1KiB\"",
            "line 2: queue.receive-buffer: must be between 64KiB and 1024MiB",
        ),
        ("[queue]\nbackend = \"nfqueue\"", "line 2: unknown variant `nfqueue`, expected `netlink` or `nfq`"),
        ("ports = [5060]", "line 1: unknown key \"ports\"; \"ports\" belongs into [media] or [sip]"),
        ("[limits]\ncalls = \"all\"", "line 2: invalid type: string \"all\", expected a whole number"),
        ("[media]\naccounting = 1", "line 2: invalid type: integer `1`, expected true or false"),
        ("[sip]\nservers = \"::/0\"", "line 2: invalid type: string \"::/0\", expected a list: […]"),
        ("[limits]\ncalls = 0", "line 2: limits.calls: must be between 1 and 16777216"),
        (
            "[sip]\ntcp-patience = \"26s\"",
            "line 2: sip.tcp-patience: must be between 1s and 25s; then the message's transaction is given up anyway",
        ),
        (
            "[sip]\ntcp-patience = \"0s\"",
            "line 2: sip.tcp-patience: must be between 1s and 25s; then the message's transaction is given up anyway",
        ),
        (
            "[limits]\nconnections = 131073",
            "line 2: limits.connections: must be between 1 and 131072; the ruleset has room for no more",
        ),
        (
            "[limits]\ntcp-bytes = \"2048MiB\"",
            "line 2: limits.tcp-bytes: must be between 64KiB, the longest message, and 1024MiB",
        ),
        (
            "[limits]\ntcp-bytes-per-host = \"1KiB\"",
            "line 2: limits.tcp-bytes-per-host: must be between 64KiB, the longest message, and 1024MiB",
        ),
        (
            "[limits]\ntcp-held = 897",
            "line 2: limits.tcp-held: must be between 1 and 896; there is room for no more packets",
        ),
        (
            "[limits]\n\ntcp-held-per-host = 0",
            "line 3: limits.tcp-held-per-host: must be between 1 and 896; there is room for no more packets",
        ),
        ("[limits]\ntcp-held = \"8MiB\"", "line 2: invalid type: string \"8MiB\", expected a whole number"),
        (
            "[log]\nlevel = \"chatty\"",
            "line 2: \"chatty\" is not a log level; write one of off, error, warn, info, debug, trace, or for one module \"info,sipalg::alg=debug\"",
        ),
    ] {
        assert_eq!(refusal(text), says, "{text}");
    }
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    assert!(refusal("[sip]\nports = [5060").starts_with("line 2: "), "{}", refusal("[sip]\nports = [5060"));
    assert!(refusal("[sip]\n[sip]").starts_with("line 2: "));
}

#[test]
fn a_file_is_named_in_the_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.toml");
    fs::write(&file, "[sip]\nport = [5060]").unwrap();
    assert_eq!(
        Config::load(Some(&file)).unwrap_err().to_string(),
        format!("{}, line 2: unknown key \"port\" in [sip]; did you mean \"ports\"?", file.display())
    );
    let missing = dir.path().join("none.toml");
    assert_eq!(
        Config::load(Some(&missing)).unwrap_err().to_string(),
        format!("can't read {}: No such file or directory (os error 2)", missing.display())
    );
}

#[test]
fn strange_but_legal_settings_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let open = warnings(&Config::default(), Some(&file));
    assert_eq!(
        open,
        [format!("{} can be written by others than its owner (mode 666): chmod go-w", file.display())]
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(warnings(&Config::default(), Some(&file)), [""; 0]);
    assert_eq!(warnings(&Config::default(), Some(Path::new("/nonexistent"))), [""; 0]);
    // Root's own, as these tests are.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(0)).expect("this test needs root");
    let hidden = warnings(&Config::default(), Some(&file));
    assert_eq!(
        hidden,
        [format!(
            "{} can be read by root only (mode 640), and the service runs as the user sipalg: chgrp sipalg and chmod 640",
            file.display()
        )]
    );
    std::os::unix::fs::chown(&file, Some(0), Some(1)).expect("this test needs root");
    assert_eq!(warnings(&Config::default(), Some(&file)), [""; 0]);

    for (text, begins) in [
        ("on-failure = \"drop\"", "on-failure is \"drop\""),
        ("[sip]\nports = [5060, 5061]", "sip.ports contains 5061"),
        ("[sip]\nports = [53]", "sip.ports contains a port below 1024"),
        ("[sip]\nports = [\"7000-9000\"]", "sip.ports has more than 1,024 ports"),
        ("[sip]\nservers = [\"0.0.0.0/0\"]", "sip.servers contains every address"),
        ("[media]\nports = \"20000-20039\"", "media.ports has 40 ports"),
        ("[media]\nports = \"65000-65535\"\n[queue]\nbase = 0", "queue.base is 0"),
        ("[media]\nquarantine = \"1s\"", "media.quarantine is below 64s"),
        ("[media]\nhalf-open = \"5s\"", "media.half-open is below 32s"),
        ("[media]\ninactivity = \"1m\"", "media.inactivity is below 2m"),
        ("[media]\nsource = \"any\"", "media.source is \"any\""),
        ("[media]\ninside-hosts = [\"::/0\"]", "media.inside-hosts contains every address"),
        ("[media]\ndenied-ports = []", "media.denied-ports does not contain 5060"),
        ("[limits]\ncalls = 4096", "limits.per-host lets one inside host have all that limits.calls allows"),
        (
            "[limits]\nbindings = 4096",
            "limits.bindings-per-host lets one inside host have all that limits.bind",
        ),
        (
            "[limits]\ntcp-bytes-per-host = \"64MiB\"",
            "limits.tcp-bytes-per-host lets one inside host have all that limits.tcp-bytes allows",
        ),
        (
            "[limits]\ntcp-held = 384",
            "limits.tcp-held-per-host lets one inside host have all that limits.tcp-held allows",
        ),
        (
            "[limits]\nconnections = 4096",
            "limits.per-host lets one inside host have all that limits.connections allows",
        ),
        ("[sip]\ntcp-patience = \"12s\"", "sip.tcp-patience is below 13s"),
        ("[queue]\nmax-length = 768", "limits.tcp-held is not below queue.max-length"),
        ("[queue]\noverload = \"pass\"", "queue.overload is \"pass\""),
        ("[log]\nlevel = \"debug\"", "log.level shows"),
    ] {
        let found = warnings(&Config::parse(text).unwrap(), None);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(begins), "{text}: {found:?}");
    }
}

#[test]
fn what_has_changed_is_named_by_its_keys() {
    let raw = |text| Config::parse(text).unwrap().raw;
    let (one, other) =
        (raw(""), raw("on-failure = \"drop\"\n[sip]\nports = [5060, 5070]\n[limits]\ncalls = 32768"));
    assert_eq!(keys::changed(&one, &one), [""; 0]);
    assert_eq!(keys::changed(&one, &other), ["on-failure", "sip.ports"]);
}

#[test]
fn a_place_is_a_word_or_an_absolute_path() {
    for wrong in ["state", "", "/var/lib/", "~/state"] {
        let said = refusal(&format!("state-file = \"{wrong}\""));
        assert!(said.contains("must be \"auto\", \"none\" or the absolute path of a file"), "{said}");
    }
}

#[test]
fn a_user_is_a_word_or_a_name() {
    for wrong in ["", "0", "a b", "../x", "-x"] {
        let said = refusal(&format!("user = \"{wrong}\""));
        assert!(said.contains("must be \"auto\", \"none\" or the name of a user"), "{said}");
    }
}
