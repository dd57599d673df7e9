//! A process that commits to an organization in a directory until it is done or killed, for `object_processes`.
//!
//! `object_writer <store> <identity file> <state folder> <commits>`. Like a mount it has a journal: a write is frozen
//! there before it is sent and stays until its outcome is known. Says `sent` before each try and `kept` after each
//! commit that was acknowledged and noted in `acknowledged`.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result, bail};
use parsecfs_backends::objects;
use parsecfs_core::{
    storage::{Storage, VlobWrite, WriteOutcome},
    time::Timestamp,
};
use parsecfs_tests::{
    objects::options,
    processes::{FILE, REALM, content, now, read_identity},
};

/// Which write is next, and its version and time once it is frozen.
struct Journal<'a> {
    folder: &'a Path,
    number: u32,
    frozen: Option<(u32, Timestamp)>,
}

impl<'a> Journal<'a> {
    fn open(folder: &'a Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join("journal")).unwrap_or_else(|_| "0".to_owned());
        let mut words = text.split(' ');
        let number = words.next().context("a number")?.parse()?;
        let frozen = match (words.next(), words.next()) {
            (Some(version), Some(micros)) => {
                Some((version.parse()?, Timestamp::from_micros(micros.parse()?).context("in range")?))
            }
            _ => None,
        };
        Ok(Self { folder, number, frozen })
    }

    fn write(&self) -> Result<()> {
        let text = match self.frozen {
            Some((version, timestamp)) => format!("{} {version} {}", self.number, timestamp.as_micros()),
            None => self.number.to_string(),
        };
        fs::write(self.folder.join("journal.new"), text)?;
        Ok(fs::rename(self.folder.join("journal.new"), self.folder.join("journal"))?)
    }

    fn acknowledge(&mut self, version: u32) -> Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("acknowledged"))?;
        writeln!(file, "{} {version}", self.number)?;
        (self.number, self.frozen) = (self.number + 1, None);
        self.write()
    }
}

async fn freeze(storage: &dyn Storage, floor: Option<Timestamp>) -> Result<(u32, Timestamp)> {
    let newest = storage.read(REALM, &[FILE]).await?;
    let after = newest.first().map(|newest| newest.timestamp.next()).max(floor.map(Timestamp::next));
    Ok((newest.first().map_or(1, |newest| newest.version + 1), now().max(after.unwrap_or_else(now))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, store, identity, state, commits] = &*arguments else { bail!("four arguments") };
    let (identity, state, commits) = (read_identity(Path::new(identity))?, Path::new(state), commits.parse::<u32>()?);
    let device = identity.device;
    let options = options(&identity, state, now);
    let storage = objects::open(store, options).await?;
    let mut journal = Journal::open(state)?;
    let mut out = std::io::stdout();
    let mut floor = None;
    while journal.number < commits {
        if journal.frozen.is_none() {
            journal.frozen = Some(freeze(&*storage, floor).await?);
            journal.write()?;
        }
        let (version, timestamp) = journal.frozen.context("frozen above")?;
        let blob = content(device, journal.number).into();
        let write = VlobWrite { id: FILE, version, key_index: 1, timestamp, blob, new_blocks: vec![] };
        writeln!(out, "sent")?;
        out.flush()?;
        let outcome = parsecfs_core::storage::VlobStore::commit(&*storage, REALM, vec![write]).await?[0];
        match outcome {
            WriteOutcome::Stored => {
                journal.acknowledge(version)?;
                writeln!(out, "kept")?;
                out.flush()?;
            }
            WriteOutcome::Conflict => journal.frozen = None,
            WriteOutcome::TimestampTooOld(last) => (journal.frozen, floor) = (None, Some(last)),
            refused => bail!("{refused:?}"),
        }
    }
    Ok(())
}
