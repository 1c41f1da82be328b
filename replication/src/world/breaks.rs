//! Rules that are broken on purpose, and how much may go wrong in one world.

/// A rule that is broken on purpose. Each one must be noticed by [`World::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Break {
    /// The high watermark advances without a follower that is being added to the ISR.
    CommitsWithoutWhoJoins,
    /// An ISR is acted on before the store has answered.
    ActsBeforeTheAnswer,
    /// A proposal that was overtaken is taken as never made, though an earlier attempt may have succeeded.
    ForgetsLostAnswers,
    /// A new follower cuts its log at its high watermark instead of where the epochs parted (before KIP-101).
    TruncatesToHighWatermark,
    /// Neither side compares epochs when a follower fetches.
    ComparesNoEpochs,
    /// Anybody who lives may lead, in sync or not.
    ElectsOutsideTheIsr,
    /// A new leader leads in the old epoch.
    KeepsTheLeaderEpoch,
    /// Fetches and answers of other epochs count.
    TakesOtherEpochs,
    /// A fetch of an earlier life of a broker counts, and it may join the ISR by it (before KIP-903).
    CountsEarlierLives,
    /// A broker that may have lost records keeps its place.
    TrustsAfterPowerCuts,
    /// The store takes proposals for states that have passed.
    StoreComparesNothing,
    /// Records are committed by fewer replicas than `min.insync.replicas`.
    CommitsBelowTheMinimum,
    /// Who left an ISR below the minimum is not eligible (before KIP-966).
    ForgetsTheEligible,
    /// Records are committed while somebody outside the ISR may still be elected, because `min.insync.replicas` was lowered.
    CommitsPastTheEligible,
    /// A follower joins as soon as it has what this leader knows to be committed.
    JoinsBeforeTheEpochBegan,
    /// A restarted broker goes on as leader of an epoch of its life before.
    ResumesItsRole,
    /// A replica whose directory failed is known to be offline, and stays in the ISR all the same, also when it comes back.
    TrustsAfterDirectoriesFailed,
    /// Elections look at ISR, ELR and the last leader alone, and not at who is offline.
    ElectsWhoIsOffline,
    /// A fetch from before its directory failed lets a follower join.
    LetsWhoIsOfflineJoin,
    /// A broker that comes back with an empty disk is one that may have lost records, and no more than that.
    TrustsEmptyDisks,
    /// The old disk of a broker that came back with an empty one counts again whoever has led meanwhile.
    TrustsOldDisks,
    /// A move ends as if who is added were in sync.
    CompletesWithoutWhoIsAdded,
    /// A move ends also where fewer than `min.insync.replicas` have every record after it (as in Kafka).
    CompletesBelowTheMinimum,
    /// A move is cancelled also where fewer than `min.insync.replicas` have every record after it (as in Kafka).
    CancelsBelowTheMinimum,
    /// A replica leaves the partition and its leader leads on in the same epoch.
    KeepsTheEpochOfWhoLeft,
    /// A proposal is taken for refused because who would join is about to stop, though an attempt may be under way.
    RefusesWhoIsAside,
    /// A proposal is taken for refused because the store is away, though an attempt before this one may be under way.
    ForgetsWhatIsUnderWay,
    /// The answer to a proposal is taken for the answer to a later one.
    TakesAnyAnswer,
    /// A state that was restored from a backup goes on, in epochs that nobody has used.
    TrustsTheBackup,
    /// After a restoration the first that tell what they have elect a leader.
    RecoversBeforeAllHaveTold,
    /// After a restoration only the replicas of the backup are asked: a log that it does not know of is set aside.
    SetsStraysAside,
    /// The replicas of the backup elect a leader before all brokers have looked for such logs.
    RecoversBeforeAllHaveLooked,
    /// What a replica told counts also after its broker may have lost records.
    KeepsWhatWasTold,
    /// A leader archives what is not below its high watermark.
    ArchivesWhatIsNotCommitted,
    /// A leader publishes whatever epoch was announced after its own.
    PublishesInAnyEpoch,
    /// The bucket takes a version of the manifest that is there already.
    OverwritesVersions,
    /// What was overtaken by another version of the manifest is published as it is, after that.
    PublishesWhatWasOvertaken,
    /// A publication without a reply counts as done.
    TakesLostRepliesForDone,
    /// The manifest names an object before it is in the bucket.
    PublishesBeforeTheUpload,
    /// Records leave the disk when they are in the bucket, before the manifest names them.
    DropsWhatIsNotPublished,
    /// A follower that lacks what its leader's disk lacks, too, begins at 0.
    StartsOverAtZero,
    /// It begins at the end of its leader's log.
    StartsOverAtTheEnd,
    /// It begins without the epochs of what lies before, because it has not read the archive lately.
    StartsOverWithoutEpochs,
    /// A leader that was deposed and has not heard of it looks for its own records in what its successor archived.
    LooksBehindItsSuccessor,
    /// A leader archives what follows in its log, whatever the archive has before that.
    ArchivesBehindOtherRecords,
    /// Records leave the disk where the archive has others at their offsets.
    DropsInFavourOfOtherRecords,
    /// Records are deleted that are not committed.
    DeletesWhatIsNotCommitted,
    /// Clients are told that records are deleted which other replicas still have.
    DeletesOnTheLeaderAlone,
    /// Nobody waits for who does not seem to live, though it may still be elected (as in Kafka).
    DeletesWhereOthersLive,
    /// A broker tells that it has deleted records which a restart brings back (as in Kafka).
    TellsWhatARestartForgets,
    /// A follower joins with records that the leader has deleted (as in Kafka).
    LetsJoinWhoDeletedLess,
    /// A log forgets the epochs before its start while a restart may have it start there again.
    ForgetsEpochsBeforeTheStartIsKept,
    /// Deleted records that the archive lacks leave the disk while a restart may have the log start at them again.
    DropsBeforeTheStartIsKept,
    /// Retention by size counts records twice that the disk and the archive have.
    CountsWhatBothTiersHaveTwice,
    /// Objects that retention lets go leave the bucket before the manifest names them no more.
    DeletesObjectsFirst,
    /// The sweep takes for an orphan what a leader has uploaded and not published yet.
    SweepsWhatMayYetBePublished,
    /// What a compactor has made of an older manifest is published as it is, after a newer one.
    PublishesStaleRewrites,
    /// What a compactor has made takes the place of whatever lies at those offsets by now.
    ReplacesWhateverLiesThere,
    /// What says that a key is gone goes before what it speaks of.
    CompactsTheNewestFirst,
    /// A leader archives what follows in its log behind an archive that set aside what came before.
    ArchivesBehindWhatWasSetAside,
}

impl Break {
    pub(crate) const ALL: [Break; 60] = [
        Break::CommitsWithoutWhoJoins,
        Break::ActsBeforeTheAnswer,
        Break::ForgetsLostAnswers,
        Break::TruncatesToHighWatermark,
        Break::ComparesNoEpochs,
        Break::ElectsOutsideTheIsr,
        Break::KeepsTheLeaderEpoch,
        Break::TakesOtherEpochs,
        Break::CountsEarlierLives,
        Break::TrustsAfterPowerCuts,
        Break::StoreComparesNothing,
        Break::CommitsBelowTheMinimum,
        Break::ForgetsTheEligible,
        Break::CommitsPastTheEligible,
        Break::JoinsBeforeTheEpochBegan,
        Break::ResumesItsRole,
        Break::TrustsAfterDirectoriesFailed,
        Break::ElectsWhoIsOffline,
        Break::LetsWhoIsOfflineJoin,
        Break::TrustsEmptyDisks,
        Break::TrustsOldDisks,
        Break::CompletesWithoutWhoIsAdded,
        Break::CompletesBelowTheMinimum,
        Break::CancelsBelowTheMinimum,
        Break::KeepsTheEpochOfWhoLeft,
        Break::RefusesWhoIsAside,
        Break::ForgetsWhatIsUnderWay,
        Break::TakesAnyAnswer,
        Break::TrustsTheBackup,
        Break::RecoversBeforeAllHaveTold,
        Break::SetsStraysAside,
        Break::RecoversBeforeAllHaveLooked,
        Break::KeepsWhatWasTold,
        Break::ArchivesWhatIsNotCommitted,
        Break::PublishesInAnyEpoch,
        Break::OverwritesVersions,
        Break::PublishesWhatWasOvertaken,
        Break::TakesLostRepliesForDone,
        Break::PublishesBeforeTheUpload,
        Break::DropsWhatIsNotPublished,
        Break::StartsOverAtZero,
        Break::StartsOverAtTheEnd,
        Break::StartsOverWithoutEpochs,
        Break::LooksBehindItsSuccessor,
        Break::ArchivesBehindOtherRecords,
        Break::DropsInFavourOfOtherRecords,
        Break::DeletesWhatIsNotCommitted,
        Break::DeletesOnTheLeaderAlone,
        Break::DeletesWhereOthersLive,
        Break::TellsWhatARestartForgets,
        Break::LetsJoinWhoDeletedLess,
        Break::ForgetsEpochsBeforeTheStartIsKept,
        Break::DropsBeforeTheStartIsKept,
        Break::CountsWhatBothTiersHaveTwice,
        Break::DeletesObjectsFirst,
        Break::SweepsWhatMayYetBePublished,
        Break::PublishesStaleRewrites,
        Break::ReplacesWhateverLiesThere,
        Break::CompactsTheNewestFirst,
        Break::ArchivesBehindWhatWasSetAside,
    ];
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) appends: u8,
    /// A process ends; what it wrote is kept.
    pub(crate) crashes: u8,
    /// A machine loses what was not on disk.
    pub(crate) power_cuts: u8,
    /// A log directory fails whose records are all there when it comes back. Where machines may lose records, one that fails is one of
    /// [`power_cuts`](Self::power_cuts) instead: nobody can know that it lost none.
    pub(crate) failures: u8,
    /// A broker is started with an empty disk in place of its own, and may get that back.
    pub(crate) swaps: u8,
    /// The controller takes a living broker for dead.
    pub(crate) false_alarms: u8,
    /// More time passes than a follower may lag.
    pub(crate) lags: u8,
    /// Attempts to reach the store that get no answer, and arrive there now, later or never.
    pub(crate) lost_answers: u8,
    /// Attempts that do not get there, and say so.
    pub(crate) outages: u8,
    /// Times that the partition is sent to other brokers.
    pub(crate) moves: u8,
    /// Times that this is taken back.
    pub(crate) cancels: u8,
    /// Times that a broker says that others shall lead.
    pub(crate) asides: u8,
    /// Fetches that are given up and sent anew while the old one is still under way.
    pub(crate) refetches: u8,
    /// Messages that are delivered twice.
    pub(crate) duplicates: u8,
    /// Elections of the preferred replica.
    pub(crate) preferred: u8,
    /// Times that `min.insync.replicas` is lowered.
    pub(crate) lowered: u8,
    /// Times that the store is restored from a backup. Not where replicas lose their disks.
    pub(crate) put_backs: u8,
    /// Segments that leave a disk for the archive.
    pub(crate) drops: u8,
    /// Writes to the bucket that get no reply, and arrive there now, later or never.
    pub(crate) lost_replies: u8,
    /// Requests to the bucket that do not get there, and say so.
    pub(crate) bucket_outages: u8,
    /// Times that an operator has the archive go on with the leader's log.
    pub(crate) partings: u8,
    /// Times that a client has records deleted.
    pub(crate) deletes: u8,
    /// Times that the bucket is swept.
    pub(crate) sweeps: u8,
    /// Times that a compactor begins to rewrite something.
    pub(crate) compactions: u8,
    /// Times that a compactor ends.
    pub(crate) compactor_ends: u8,
}

impl Budget {
    pub(crate) const NONE: Budget = Budget {
        appends: 0,
        crashes: 0,
        power_cuts: 0,
        failures: 0,
        swaps: 0,
        false_alarms: 0,
        lags: 0,
        lost_answers: 0,
        outages: 0,
        moves: 0,
        cancels: 0,
        asides: 0,
        refetches: 0,
        duplicates: 0,
        preferred: 0,
        lowered: 0,
        put_backs: 0,
        drops: 0,
        lost_replies: 0,
        bucket_outages: 0,
        partings: 0,
        deletes: 0,
        sweeps: 0,
        compactions: 0,
        compactor_ends: 0,
    };
}
