//! `device recovery`: the ways back when all devices are lost, by a file or by people who hold shares.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use data_encoding::BASE64;
use serde_json::json;

use crate::{
    cli::{NewDevice, Recovery},
    command::Context,
    exit::Kind,
    failure::{Failure, Result},
    output::table,
    password::Source,
    rpc::{DeviceCall, DeviceView, RecoverySharesView, RecoveryView, Request, SharedRecoveryView},
};

/// A recovery file is below 2 KiB; anything much larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn run(context: &Context, command: Recovery) -> Result<()> {
    match command {
        Recovery::Export { file } => export(context, &file),
        Recovery::Import { file, passphrase_file, device } => {
            import(context, &file, &Source::file_or_person(passphrase_file), device)
        }
        Recovery::Setup { recipients, threshold } => {
            let made: SharedRecoveryView = context.ask_device(DeviceCall::SetUpRecovery { threshold, recipients })?;
            context.output.answer(&made, shared)?;
            for holder in made.holders.iter().filter(|holder| holder.shares >= made.threshold) {
                context.output.note(&format!("{} alone holds enough shares to be you.", holder.user.email));
            }
            Ok(())
        }
        Recovery::Shares => {
            let view: RecoverySharesView = context.ask_device(DeviceCall::RecoveryShares)?;
            context.output.answer(&view, shares)
        }
        Recovery::Delete => {
            context.confirm("Nobody will be able to get you back with the shares that they hold.")?;
            let ended: SharedRecoveryView = context.ask_device(DeviceCall::DeleteRecovery)?;
            context.output.answer(&ended, |_| "others can no longer get you back together".to_owned())
        }
    }
}

fn export(context: &Context, path: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| {
        let failure = Failure::io(format_args!("cannot write {}", path.display()), error);
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Failure { kind: Kind::Exists, ..failure }
                .hint("choose another name; a recovery file is never overwritten");
        }
        failure
    };
    // Made before the device is: a device whose file cannot be written would be of no use and stay for ever.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| failed(&error))?;
    let exported = context.ask_device::<RecoveryView>(DeviceCall::ExportRecovery).and_then(|view| {
        let bytes = BASE64
            .decode(view.file.as_bytes())
            .map_err(|_| Failure::new(Kind::Failed, "the agent's answer cannot be read"))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|error| failed(&error))?;
        Ok(view)
    });
    let view = match exported {
        Ok(view) => view,
        Err(failure) => {
            // An empty file would pass for a recovery file; when it cannot be removed, the failure below still tells.
            let _ignored = std::fs::remove_file(path);
            return Err(failure);
        }
    };
    let passphrase = view.passphrase.reveal();
    let document = json!({"file": path, "passphrase": passphrase});
    context.output.answer(&document, |_| format!("file        {}\npassphrase  {passphrase}", path.display()))?;
    context.output.note("Write the passphrase down and keep it apart from the file: both together are your keys.");
    Ok(())
}

fn import(context: &Context, path: &Path, passphrase: &Source, device: NewDevice) -> Result<()> {
    let failed = |error: &std::io::Error| Failure::io(format_args!("cannot read {}", path.display()), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    let request = Request::ImportRecovery {
        file: BASE64.encode(&bytes),
        passphrase: passphrase.existing("Recovery passphrase: ")?,
        device: context.new_device(device)?,
    };
    let made: DeviceView = context.client.call(&request)?;
    context.output.answer(&made, |made| format!("device  {}\nid      {}", made.label, made.device_id))?;
    context.output.note("next: mountctl workspace list");
    Ok(())
}

fn shared(view: &SharedRecoveryView) -> String {
    let rows: Vec<_> = view
        .holders
        .iter()
        .map(|holder| {
            let state = if holder.user.revoked { "revoked" } else { "" };
            [holder.user.email.clone(), holder.shares.to_string(), state.to_owned()]
        })
        .collect();
    let verdict = if view.possible { "" } else { ": too few to get back" };
    let left =
        format!("{} of {} shares are needed, {} are left{verdict}", view.threshold, total(view), view.shares_left);
    format!("{left}\n{}", table(["HOLDER", "SHARES", ""], &rows))
}

fn total(view: &SharedRecoveryView) -> u32 {
    view.holders.iter().map(|holder| u32::from(holder.shares)).sum()
}

fn shares(view: &RecoverySharesView) -> String {
    let own = match &view.own {
        Some(own) => shared(own),
        None => "nobody holds shares for you: `mountctl device recovery setup`".to_owned(),
    };
    let rows: Vec<_> = view
        .held
        .iter()
        .map(|held| {
            let state = if held.possible { "" } else { "too few left" };
            [held.user.email.clone(), held.threshold.to_string(), held.shares_left.to_string(), state.to_owned()]
        })
        .collect();
    let held = table(["YOU HOLD SHARES FOR", "NEEDED", "LEFT", ""], &rows);
    if held.is_empty() { own } else { format!("{own}\n\n{held}") }
}
