//! What becomes of each caller's commit on the present head of the log: answered, or part of the next entry.

use parsecfs_core::storage::{Result, VlobWrite, WriteOutcome};

use super::{
    Shared,
    commit::Group,
    follow::{RealmLog, RealmState},
    organization::Organization,
    realm::{Judgement, Pending, Rules},
};

/// What was decided about one caller's commit.
enum Verdict {
    Answered(Vec<WriteOutcome>),
    /// These of its writes go into the entry.
    Goes(Vec<usize>),
}

impl Shared {
    /// Answers the commits whose outcome is known; returns which writes of the others go into the entry.
    pub(super) async fn judge_group(
        &self,
        log: &RealmLog,
        state: &RealmState,
        organization: &Organization,
        group: &mut Group,
    ) -> Result<Vec<Vec<usize>>> {
        let mut pending = Pending::default();
        let mut chosen = Vec::new();
        let mut remaining = Vec::new();
        for queued in std::mem::take(&mut group.queued) {
            match self.judge(log, state, organization, &queued.writes, &mut pending).await {
                Ok(Verdict::Goes(indexes)) => {
                    chosen.push(indexes);
                    remaining.push(queued);
                }
                Ok(Verdict::Answered(outcomes)) => {
                    // A caller that went away does not need its answer.
                    let _ = queued.answer.send(Ok(outcomes));
                }
                Err(error) => {
                    let _ = queued.answer.send(Err(error));
                }
            }
        }
        group.queued = remaining;
        Ok(chosen)
    }

    async fn judge(
        &self,
        log: &RealmLog,
        state: &RealmState,
        organization: &Organization,
        writes: &[VlobWrite],
        pending: &mut Pending,
    ) -> Result<Verdict> {
        let mut added = Vec::new();
        let mut goes = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            let outcome = self.judge_one(log, state, organization, write, pending).await?;
            match outcome {
                // There already: a repeat.
                None => {}
                Some(WriteOutcome::Stored) => {
                    goes.push(index);
                    added.push((write.id, pending.versions.insert(write.id, (write.version, write.timestamp))));
                }
                Some(refused) => {
                    for (id, before) in added.into_iter().rev() {
                        match before {
                            Some(before) => pending.versions.insert(id, before),
                            None => pending.versions.remove(&id),
                        };
                    }
                    let mut outcomes = vec![WriteOutcome::NotTried; writes.len()];
                    outcomes[index] = refused;
                    return Ok(Verdict::Answered(outcomes));
                }
            }
        }
        if goes.is_empty() {
            return Ok(Verdict::Answered(vec![WriteOutcome::Stored; writes.len()]));
        }
        Ok(Verdict::Goes(goes))
    }

    /// `None` when this very write is there already.
    async fn judge_one(
        &self,
        log: &RealmLog,
        state: &RealmState,
        organization: &Organization,
        write: &VlobWrite,
        pending: &Pending,
    ) -> Result<Option<WriteOutcome>> {
        if state.data.seq < state.head().seq {
            return Ok(Some(WriteOutcome::OldKey));
        }
        let rules = Rules { certificates: &state.certificates, organization };
        match state.data.judge(write, pending, &rules) {
            Judgement::PerhapsRepeat => {
                let stored = self.version_of(log, state, write.id, write.version).await?;
                let author = self.options.signer.device_id();
                let is_repeat = match stored {
                    Some(stored) => {
                        stored.blob == write.blob && stored.timestamp == write.timestamp && stored.author == author
                    }
                    None => state.data.has_written_last(author, write),
                };
                Ok(if is_repeat { None } else { Some(WriteOutcome::Conflict) })
            }
            Judgement::Is(WriteOutcome::Stored) => {
                for id in &write.new_blocks {
                    if !self.has_block(log, state, *id).await? {
                        return Ok(Some(WriteOutcome::BlockGone(*id)));
                    }
                }
                Ok(Some(WriteOutcome::Stored))
            }
            Judgement::Is(refused) => Ok(Some(refused)),
        }
    }
}
