//! Logs that move from one directory to another.

use super::*;
use crate::partition::{MoveError, moves::AT_A_TIME};

/// Waits until nothing is on its way any more.
async fn moved(node: &Node) {
    let turns = node.partitions.moves().turns();
    let ended = async {
        while !node.partitions.moves().list().is_empty() {
            // A move has its turn until it has ended. One that has not asked for it yet is about to.
            drop(turns.acquire_many(AT_A_TIME as u32).await.unwrap());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), ended).await.expect("the move ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_to_another_directory_while_it_is_written() {
    let node = Node::new().await;
    node.create("t", 1).await;
    let (its, other) = node.place_of("t");
    for _ in 0..100 {
        node.append("t", 0).unwrap();
    }
    let partition = node.find("t", 0).unwrap();
    assert_eq!(node.partitions.move_log(&partition, Path::new("/nowhere")), Err(MoveError::NoSuchDir));
    node.partitions.move_log(&partition, &node.dir(its)).unwrap();
    assert!(node.partitions.moves().list().is_empty(), "it is there");
    node.partitions.move_log(&partition, &node.dir(other)).unwrap();
    for _ in 0..100 {
        node.append("t", 0).unwrap();
    }
    moved(&node).await;
    assert_eq!(node.place_of("t").0, other);
    assert!(!node.dir(its).join("t-0").exists());
    assert_eq!(node.append("t", 0).unwrap(), offset(200), "the same log, elsewhere");
    drop(partition);
    let node = node.restart(|_| ()).await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (other, offset(201)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_move_leaves_one_log_that_counts() {
    let node = Node::new().await;
    node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, other) = node.place_of("t");
    let id = |root: &Path, name: &str| {
        let text = std::fs::read_to_string(root.join(name).join("meta.properties")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("directory.id=")).unwrap().to_owned()
    };
    let mark = |root: &Path| std::fs::write(root.join(its).join("t-0/moved-to"), id(root, other)).unwrap();
    // Marked, and the copy had not its name yet: the move begins anew.
    let node = node
        .restart(|root| {
            mark(root);
            std::fs::create_dir(root.join(other).join("t-0.0123-future")).unwrap();
        })
        .await;
    moved(&node).await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (other, offset(1)));
    // Marked, and the copy has its name: what was left behind goes.
    let node = node
        .restart(|root| {
            std::fs::create_dir(root.join(its).join("t-0")).unwrap();
            for entry in std::fs::read_dir(root.join(other).join("t-0")).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, root.join(its).join("t-0").join(path.file_name().unwrap())).unwrap();
            }
            mark(root);
        })
        .await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (other, offset(2)));
    assert!(!node.dir(its).join("t-0").exists());
    // Marked, and nobody knows whether the copy has its name: neither counts until somebody does.
    let node = node
        .restart(|root| {
            std::fs::rename(root.join(other).join("t-0"), root.join(its).join("t-0")).unwrap();
            mark(root);
            lose(root, other);
        })
        .await;
    assert_eq!(node.find("t", 0).unwrap_err(), LookupError::Offline);
    let node = node.restart(|root| find_again(root, other)).await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (its, offset(3)));
}

/// The directory, by name, in which the partition's log is open.
fn dir_of(node: &Node, index: u32) -> String {
    let dir = node.find("t", index).unwrap().log_dir().path.clone();
    dir.file_name().unwrap().to_string_lossy().into_owned()
}

/// A node with three directories, each with a partition of `t`.
async fn with_three() -> Node {
    let node = Node::new().await.restart(|root| std::fs::create_dir(root.join("c")).unwrap()).await;
    node.create("t", 3).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_move_between_the_directories_that_work_while_another_one_is_offline() {
    let node = with_three().await;
    let of = |name: &str| (0..3).find(|index| dir_of(&node, *index) == name).unwrap();
    let (moving, lost) = (of("a"), of("c"));
    node.append("t", moving).unwrap();
    let failed = node.storage.dirs.iter().find(|dir| dir.path == node.dir("c")).unwrap();
    failed.fail(&io::Error::other("gone"));
    let partition = node.find("t", moving).unwrap();
    node.partitions.move_log(&partition, &node.dir("b")).unwrap();
    moved(&node).await;
    assert_eq!((dir_of(&node, moving).as_str(), node.append("t", moving).unwrap()), ("b", offset(1)));
    assert_eq!(node.partitions.move_log(&partition, &node.dir("c")), Err(MoveError::Offline), "into it");
    let gone = node.find("t", lost).unwrap();
    assert_eq!(node.partitions.move_log(&gone, &node.dir("a")), Err(MoveError::Offline), "out of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_move_left_in_a_directory_that_comes_back_is_set_aside_if_the_log_has_moved_on() {
    let node = with_three().await;
    let index = (0..3).find(|index| dir_of(&node, *index) == "b").unwrap();
    node.append("t", index).unwrap();
    let name = format!("t-{index}");
    // Moved from a to b, and a failed before what it had was deleted.
    let left = |root: &Path| {
        let text = std::fs::read_to_string(root.join("b/meta.properties")).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("directory.id=")).unwrap().to_owned();
        std::fs::create_dir(root.join("a").join(&name)).unwrap();
        for entry in std::fs::read_dir(root.join("b").join(&name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, root.join("a").join(&name).join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(root.join("a").join(&name).join("moved-to"), id).unwrap();
        lose(root, "a");
    };
    let node = node.restart(left).await;
    let partition = node.find("t", index).unwrap();
    node.partitions.move_log(&partition, &node.dir("c")).unwrap();
    moved(&node).await;
    drop(partition);
    assert_eq!((dir_of(&node, index).as_str(), node.append("t", index).unwrap()), ("c", offset(1)));
    let node = node.restart(|root| find_again(root, "a")).await;
    assert_eq!((dir_of(&node, index).as_str(), node.append("t", index).unwrap()), ("c", offset(2)));
    let is_aside = |entry: std::io::Result<std::fs::DirEntry>| {
        let found = entry.unwrap().file_name().to_string_lossy().into_owned();
        found.starts_with(&name) && found.ends_with("-stray")
    };
    assert!(!node.dir("a").join(&name).exists() && std::fs::read_dir(node.dir("a")).unwrap().any(is_aside));
}

/// Has the log of `t` move to `to`, so slowly that it never gets there, and waits until some of it is copied.
async fn move_slowly(node: &Node, to: &str) -> Arc<Partition> {
    let partition = node.find("t", 0).unwrap();
    node.partitions.moves().set_bytes_per_second(Some(1));
    node.partitions.move_log(&partition, &node.dir(to)).unwrap();
    while node.partitions.moves().list().iter().all(|(_, moving)| moving.bytes() == 0) {
        tokio::task::yield_now().await;
    }
    partition
}

/// Directories in `name` of partitions of `t`, whatever their names end in.
fn found_in(node: &Node, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(node.dir(name)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("t-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_waits_for_its_turn_leaves_a_younger_topic_of_the_name_alone() {
    let node = Node::new().await;
    let old = node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (_, other) = node.place_of("t");
    let turns = node.partitions.moves().turns();
    let every_turn = turns.acquire_many(turns.available_permits() as u32).await.unwrap();
    let partition = node.find("t", 0).unwrap();
    node.partitions.move_log(&partition, &node.dir(other)).unwrap();
    // The directory that has less gets the new log: the one that the old log was to go to.
    let more = [partition.log_dir(), partition.log_dir(), partition.log_dir()];
    drop(partition);
    node.delete(old).await;
    node.create("t", 1).await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (other, offset(0)));
    drop(every_turn);
    moved(&node).await;
    removed(&node).await;
    assert_eq!(found_in(&node, other), ["t-0"]);
    assert_eq!(node.append("t", 0).unwrap(), offset(1));
    drop(more);
    let node = node.restart(|_| ()).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_move_is_left_once_its_topic_is_deleted() {
    let node = Node::new().await;
    let old = node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, other) = node.place_of("t");
    drop(move_slowly(&node, other).await);
    node.delete(old).await;
    removed(&node).await;
    assert_eq!((found_in(&node, its), found_in(&node, other)), (vec![], vec![]));
    node.create("t", 1).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_move_and_the_next_start_takes_it_up_again() {
    let node = Node::new().await;
    node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, other) = node.place_of("t");
    drop(move_slowly(&node, other).await);
    node.storage.close();
    assert_eq!(node.place_of("t").0, its);
    assert!(matches!(found_in(&node, other).as_slice(), [copy] if copy.ends_with("-future")));
    moved(&node).await;
    assert_eq!(node.place_of("t").0, its, "and it stays there");
    let node = node.restart(|_| ()).await;
    moved(&node).await;
    assert_eq!((node.place_of("t").0, node.append("t", 0).unwrap()), (other, offset(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_starts_over_if_the_log_is_cut_meanwhile() {
    let node = Node::new().await;
    node.create("t", 1).await;
    let (_, other) = node.place_of("t");
    for _ in 0..100 {
        node.append("t", 0).unwrap();
    }
    let partition = move_slowly(&node, other).await;
    // As a follower does where its log parted from the leader's.
    partition.log().truncate_to(offset(40), wall_clock()).unwrap().purge().unwrap();
    node.append("t", 0).unwrap();
    node.partitions.moves().set_bytes_per_second(None);
    moved(&node).await;
    assert_eq!(node.place_of("t").0, other);
    assert_eq!(node.append("t", 0).unwrap(), offset(41));
}
