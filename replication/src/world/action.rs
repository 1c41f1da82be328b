//! Everything that can happen in the world.

use varve_metadata::model::BrokerId;

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Append(BrokerId),
    /// The broker's image catches up with the store.
    Show(BrokerId),
    Fetch(BrokerId),
    /// The message at that place arrives.
    Deliver(usize),
    /// It arrives, and will do so again.
    Duplicate(usize),
    /// It never arrives.
    Drop(usize),
    /// The proposal or answer at that place arrives.
    Store(usize),
    /// The proposal at that place gets no answer. It is on its way.
    LoseAnswer(usize),
    /// The proposal at that place cannot be sent.
    SendNothing(usize),
    /// What was put to the store without an answer arrives there.
    Arrive(usize),
    /// A leader looks at its followers.
    Review(BrokerId),
    /// So much time passes for all.
    Lag,
    Crash(BrokerId),
    /// The last records of its log are lost, so many of them.
    PowerCut(BrokerId, usize),
    /// The log directory fails, and when it comes back it lacks so many of the last records. The broker goes on.
    FailDirectory(BrokerId, usize),
    /// The broker has the store take it that its replica is offline.
    TellOffline(BrokerId),
    /// The broker, in another life, has the store take it that its replica is there again.
    TellOnline(BrokerId),
    Restart(BrokerId),
    /// The broker ends, and gets an empty disk.
    TakeDisk(BrokerId),
    /// The broker ends, and gets the disk at that place of the shelf.
    ReturnDisk(BrokerId, usize),
    /// A broker that starts after the store was put back has it take what it finds; one with another disk than before, that its log is
    /// gone. Then it lives.
    Enter(BrokerId),
    /// A broker that was let in has the store take it that it has again the log that was gone.
    TellFound(BrokerId),
    /// The controller fences a broker whose lease has ended.
    Fence(BrokerId),
    /// The controller lets a registered broker take part.
    Unfence(BrokerId),
    /// The controller, which is that broker, does what is due: who is gone leaves, somebody leads, a move ends.
    Tend(BrokerId),
    /// A broker says that others shall lead.
    Aside(BrokerId),
    /// It may lead again.
    Return(BrokerId),
    /// The partition is sent to the brokers whose bits are set.
    Reassign(u8),
    /// It stays where it was.
    Cancel,
    /// The preferred replica leads again.
    Prefer,
    /// `min.insync.replicas` becomes one less.
    LowerMinimum,
    /// Somebody keeps a copy of what the store holds.
    BackUp,
    /// Every broker ends, and the store holds what the copy has.
    PutBack,
    /// The broker has the store take it how far its log goes.
    TellLog(BrokerId),
    /// The archiver of a broker goes on to its next write.
    Archive(BrokerId),
    /// A broker reads the manifest in force.
    Learn(BrokerId),
    /// The archiver of a broker cannot ask the bucket what became of a write.
    GiveUp(BrokerId),
    /// A broker's first segment leaves its disk.
    DropLocal(BrokerId),
    /// The write or reply at that place arrives.
    Bucket(usize),
    /// The write at that place gets no reply. It is on its way.
    LoseReply(usize),
    /// The write at that place cannot be sent.
    WriteNothing(usize),
    /// What was written to the bucket without a reply arrives there.
    BucketLate(usize),
    /// A client has the leader delete its first records, so many of them.
    DeleteRecords(BrokerId, usize),
    /// Retention has a log without archive start later.
    Expire(BrokerId),
    /// The sweep lists the bucket.
    List,
    /// It reads the manifest, and deletes what is to go.
    Sweep,
    /// The compactor at that place goes on to its next write, or looks what there is to do.
    Compact(usize),
    /// Its process ends, and begins anew.
    EndCompactor(usize),
    /// A broker writes down where its log starts.
    KeepStart(BrokerId),
    /// An operator looks where the archive parted from the leader's log.
    Part,
    /// The archive is to go on with that.
    ConfirmPart,
}
