//! `sipalg bindings`: which public ports are open, for which phone, and who may send to them.

use std::io::Write;

use super::ask::{self, HowMany, Look, Where};
use super::{Exit, Problem};
use crate::control::protocol::{Ask, Binding, Table};

/// Shows the public ports that a running sipalg has open for media, and who may send to them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    many: HowMany,
}

/// Asks, and writes to `out`.
///
/// # Errors
/// It does not run, or does not answer.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Problem> {
    ask::show(&args.place, &args.look, (Ask::Bindings, Some(&args.many)), out, text)
}

fn text(bindings: &Table<Binding>) -> String {
    if bindings.total == 0 {
        return "no bindings".to_owned();
    }
    let rows = bindings.entries.iter().map(|it| {
        let (admitted, latched) = (it.admitted.join(" "), it.latched.join(" "));
        vec![
            it.transport.clone(),
            it.public.clone(),
            it.inside.clone(),
            it.uplink.clone(),
            it.owners.to_string(),
            admitted,
            latched,
        ]
    });
    let table = ask::table(&["over", "public", "phone", "uplink", "streams", "open for", "also from"], rows);
    table + &ask::left_out(bindings.total, bindings.entries.len())
}
