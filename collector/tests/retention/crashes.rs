//! A crash at every operation of the disk while old segments go, the power with it: what is left
//! is sound, and the real server starts on it with the same state.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use collector::app::{App, Full, Rates};
use collector::clock::Clock;
use collector::config::{self, Files, Loaded, Surroundings};
use collector::erasures::Erasures;
use collector::ids::Ids;
use collector::install::Install;
use collector::journal::committer::Now;
use collector::journal::disk::Disk;
use collector::journal::{Hooks, Journal, Options};
use collector::lately::Lately;
use collector::link::scanners::Scanners;
use collector::link::uses::LinkUses;
use collector::metrics::Metrics;
use collector::patience::Stalled;
use collector::retention;
use collector::seal::Sealer;
use collector::serve::{self, name_sites, publish_first};
use collector::snapshots::file::{SPARE, UNFINISHED};
use collector::snapshots::{self, Store};
use collector::steps;
use collector::verify::{self, verify};
use collector::webhook::queue::{Limits, Queue};
use engine::engine::{Arrival, Authority, Engine};
use engine::hit::{Claim, Hit, Named};
use engine::id::{LeadId, SiteId, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::record::Record;
use engine::time::Timestamp;
use tokio::sync::broadcast;

use crate::disk::{Dice, SimDisk};

/// 2026-12-01 00:00 in Japan.
const BEGIN: Timestamp = Timestamp(1_796_050_800_000);
const DAY: Duration = Duration::from_hours(24);
/// Two segments of a day each are older then.
const KEEP: Duration = Duration::from_hours(24 * 30);

fn later() -> Timestamp {
    BEGIN.plus(DAY * 32)
}

fn queue() -> Queue {
    Queue::new(Limits::default())
}

fn store(disk: &SimDisk, app: &App) -> Store {
    Store::new(Arc::new(disk.clone()), app.install.id.0)
}

/// A process on the disk, at a moment: all that it has is in the journal.
fn open(folder: &Path, disk: &SimDisk, now: Timestamp) -> App {
    open_at(folder, disk, now, Arc::default(), false)
}

/// The same with a boot clock that can be moved, perhaps in the next incarnation.
fn open_at(
    folder: &Path,
    disk: &SimDisk,
    now: Timestamp,
    boot_ms: Arc<AtomicU64>,
    new_incarnation: bool,
) -> App {
    let ids = Ids::default();
    let install = Install::open(folder, &ids).unwrap();
    let loaded = config::load(&Files::default(), &Surroundings::default()).unwrap();
    let Loaded { mut settings, scoring: file, .. } = loaded;
    settings.journal.keep = Some(KEEP);
    let engine = Engine::new(8);
    let segment_ms = retention::SEGMENT_MS;
    let options = Options {
        segment_bytes: 16 * 1024,
        segment_ms,
        new_incarnation,
        ..Options::new(install.id.0)
    };
    let clock = move || Now { wall_ms: now.0, boot_ms: boot_ms.load(Ordering::SeqCst) };
    let hooks = Hooks { now: Box::new(clock), poisoned: Box::new(|_| {}) };
    let (journal, _) = Journal::open(Arc::new(disk.clone()), &options, hooks, |entry| {
        engine.evolve(&Record::decode(entry.bytes).unwrap(), entry.position);
    })
    .unwrap();
    let in_force = publish_first(&engine, &journal, &file, now).unwrap();
    let sites = name_sites(&engine, &journal, &settings, &install, now);
    App {
        sites,
        scoring: ArcSwap::from_pointee(in_force),
        owners: ArcSwap::default(),
        named: ArcSwap::default(),
        do_not_send: ArcSwap::default(),
        publishing: Mutex::default(),
        jobs: Mutex::default(),
        engine,
        sealer: Arc::new(Sealer::open(folder).unwrap()),
        erasures: Mutex::new(Erasures::open(folder).unwrap()),
        kept: Store::new(Arc::new(disk.clone()), install.id.0),
        install,
        clock: Clock::test(now),
        ids,
        lately: Lately::default(),
        link_uses: LinkUses::default(),
        scanners: Scanners::default(),
        rates: Rates { address: None, site: None, claims: Vec::new() },
        metrics: Metrics::default(),
        ready: AtomicBool::new(true),
        full: Full::default(),
        snapshots: snapshots::Figures::default(),
        audit: collector::audit::Figures::default(),
        retention: retention::Figures::default(),
        stalled: Stalled::default(),
        listening: OnceLock::new(),
        live: broadcast::channel(1).0,
        settings,
        journal,
    }
}

/// Somebody looks at a page, and may say who they are.
fn hit(app: &App, visitor: u64, says: Option<u64>) {
    visit(app, visitor, &format!("/column/{visitor}"), says);
}

/// The same of a page of its own.
fn visit(app: &App, visitor: u64, path: &str, says: Option<u64>) {
    visit_at(app, app.clock.now(), (visitor, path), says);
}

/// The same by another clock.
fn visit_at(app: &App, now: Timestamp, (visitor, path): (u64, &str), says: Option<u64>) {
    let name =
        |lead| Named { kind: IdentityKind::Email, id: LeadId(lead), assurance: Assurance::Claimed };
    let spread = u128::from(visitor).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let hit = Hit {
        visitor: Some(VisitorId(spread)),
        site: SiteId(1),
        received: now,
        when: now,
        path: path.to_owned(),
        claim: says.map(|lead| Claim {
            names: vec![name(lead.wrapping_mul(0x9e37_79b9_7f4a_7c15))],
            ..Claim::default()
        }),
        ..Hit::default()
    };
    let in_force = app.scoring.load_full();
    let mut reserved = app.journal.reserve(1, 4_096).unwrap();
    let mut bytes = Vec::new();
    app.engine.ingest(Arrival { hit, first: None }, &in_force.scoring, &mut |record| {
        bytes.clear();
        record.encode(&mut bytes);
        reserved.push(&bytes)
    });
}

/// Days of visits, each in segments of its own, and two snapshots of the last.
fn lived(folder: &Path) -> SimDisk {
    lived_since(folder, BEGIN, &|_, _| {})
}

/// The same from a moment on, with something besides on each day.
fn lived_since(folder: &Path, begin: Timestamp, besides: &dyn Fn(&App, u32)) -> SimDisk {
    let disk = SimDisk::new();
    for day in [0, 1, 31, 32] {
        let app = open(folder, &disk, begin.plus(DAY * day));
        besides(&app, day);
        for visitor in 0..30 {
            hit(&app, visitor + u64::from(day) / 2, (visitor % 3 == 0).then_some(visitor));
        }
        if day == 32 {
            let store = store(&disk, &app);
            for visitor in 100..102 {
                hit(&app, visitor, None);
                snapshots::take(&app, &store, &queue, &AtomicBool::new(false)).unwrap();
            }
        }
        app.journal.stop().unwrap();
    }
    disk
}

/// What is on the disk, in a data folder.
fn folder_of(keys: &Path, disk: &SimDisk) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    fs::copy(keys.join("install.keys"), data.join("install.keys")).unwrap();
    for inner in ["journal", "snapshots", "keys"] {
        fs::create_dir(data.join(inner)).unwrap();
    }
    for name in disk.list().unwrap() {
        let inner = if name.contains(".snap") { "snapshots" } else { "journal" };
        fs::write(data.join(inner).join(&name), disk.bytes(&name)).unwrap();
    }
    folder
}

/// What the real server makes of what is on the disk, which is sound.
fn state(keys: &Path, disk: &SimDisk, about: &str) -> u128 {
    let folder = folder_of(keys, disk);
    let data = folder.path();
    let report = verify(data, &verify::Options::default()).unwrap();
    assert!(report.is_healthy(), "{about}: {}", report.text());
    let options = serve::Options {
        data: Some(data.to_owned()),
        files: Some(Files::default()),
        any_port: true,
        test_clock: Some(later()),
        ..serve::Options::default()
    };
    let running = serve::start(&options).unwrap_or_else(|error| panic!("{about}: {error}"));
    let hash = running.app.engine.state_hash(later());
    running.stop().unwrap();
    hash
}

#[test]
fn a_crash_at_every_operation_while_old_segments_go_leaves_a_folder_with_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let before = lived(folder.path());
    let expected = state(folder.path(), &before, "before");
    let (mut left, mut cut) = (Vec::new(), 0);
    for seed in 0.. {
        let disk = before.copy();
        let app = open(folder.path(), &disk, later());
        let store = store(&disk, &app);
        disk.crash_after(seed);
        let outcome = retention::look(&app, &store, &queue, 0, &AtomicBool::new(false));
        let crashed = disk.has_crashed();
        drop(app);
        disk.power_loss(&mut Dice::new(seed));
        let names = disk.list().unwrap();
        cut += usize::from(crashed && !names.contains(&"segment-0000000000000001.log".to_owned()));
        left.push((format!("seed {seed}"), disk));
        if !crashed {
            assert!(outcome.removed >= 2, "{outcome:?}");
            break;
        }
    }
    let crashes = left.len() - 1;
    assert!(crashes > 20 && cut > 1, "{crashes} crashes, {cut} of them with segments gone");
    // A start and a stop mostly wait: many at a time.
    for some in left.chunks(16) {
        thread::scope(|scope| {
            for (about, disk) in some {
                let keys = folder.path();
                scope.spawn(move || assert_eq!(state(keys, disk, about), expected, "{about}"));
            }
        });
    }
}

#[test]
fn what_a_follower_has_yet_to_read_stays() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    let app = open(folder.path(), &disk, later());
    let store = store(&disk, &app);
    let mut follower = app.journal.follow(engine::id::Position(1));
    let look = || retention::look(&app, &store, &queue, 0, &AtomicBool::new(false)).removed;
    assert_eq!(look(), 0);
    while follower.try_next().unwrap().is_some() {}
    assert!(look() >= 2);
    // Whoever comes later is told where it begins.
    let first = app.journal.first();
    let refused = app.journal.follow(engine::id::Position(1)).try_next().map(|_| ());
    assert_eq!(refused, Err(collector::journal::ReadError::Removed { first }));
}

#[test]
fn where_nothing_comes_any_more_what_is_too_old_goes_all_the_same() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let boot_ms = Arc::new(AtomicU64::new(0));
    let app = open_at(folder.path(), &disk, BEGIN, Arc::clone(&boot_ms), false);
    let store = store(&disk, &app);
    hit(&app, 1, Some(1));
    let last = app.journal.pushed();
    app.journal.wait_blocking(last).unwrap();
    assert!(app.clock.set(later()));
    boot_ms.store(32 * retention::SEGMENT_MS, Ordering::SeqCst);
    let stop = AtomicBool::new(false);
    let look = |up_ms| retention::look(&app, &store, &queue, up_ms, &stop).removed;
    assert_eq!(look(retention::SEGMENT_MS - 1), 0);
    assert_eq!(app.journal.pushed(), last, "a segment of less than a day is not complete");
    assert_eq!(look(retention::SEGMENT_MS), 0);
    let nothing = app.journal.pushed();
    assert_eq!(nothing, last.next());
    app.journal.wait_blocking(nothing).unwrap();
    for _ in 0..2 {
        snapshots::take(&app, &store, &queue, &AtomicBool::new(false)).unwrap();
        hit(&app, 2, None);
    }
    assert_eq!(look(retention::SEGMENT_MS), 1);
    assert_eq!(app.journal.first(), nothing);
    assert_eq!(look(retention::SEGMENT_MS), 0, "and it is said once");
    assert!(app.journal.pushed().0 <= nothing.0 + 2);
}

#[test]
fn a_message_about_somebody_who_was_erased_before_it_was_made_holds_nothing() {
    let told = |erased: bool| {
        let folder = tempfile::tempdir().unwrap();
        let lead = LeadId(7_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let disk = lived_since(folder.path(), BEGIN, &|app, day| {
            if day == 0 {
                hit(app, 500, Some(7));
                visit(app, 500, "/thanks/trial/a", None);
                assert!(app.engine.lead(lead).is_some());
            }
            if day == 31 && erased {
                steps::erase::erase(app, lead, &Authority::default()).unwrap();
            }
        });
        let app = open(folder.path(), &disk, later());
        let store = store(&disk, &app);
        // The base that this makes knows of the message, and so do all that come after it.
        let look = || retention::look(&app, &store, &queue, 0, &AtomicBool::new(false)).removed;
        (
            look(),
            app.retention.held.load(Ordering::Relaxed),
            app.retention.failed.load(Ordering::Relaxed),
        )
    };
    let (removed, held, failed) = told(false);
    assert!(removed == 0 && held > 0 && failed == 0, "it is yet to be told: {removed} {held}");
    let (removed, held, failed) = told(true);
    assert!(removed >= 2 && held == 0 && failed == 0, "{removed} {held} {failed}");
}

#[test]
fn nothing_goes_by_a_clock_that_has_not_been_steady_for_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    // Long ago by any machine's clock.
    let begin = Timestamp(1_000_000_000_000);
    let disk = lived_since(folder.path(), begin, &|_, _| {});
    let removed = |clock: Clock| {
        let disk = disk.copy();
        let mut app = open(folder.path(), &disk, begin.plus(DAY * 32));
        app.clock = clock;
        let store = store(&disk, &app);
        retention::look(&app, &store, &queue, 0, &AtomicBool::new(false)).removed
    };
    assert_eq!(removed(Clock::system()), 0, "it was started just now");
    assert!(removed(Clock::test(begin.plus(DAY * 33))) >= 2);
}

#[test]
fn a_base_that_is_damaged_anywhere_is_replaced_by_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    {
        let app = open(folder.path(), &disk, later());
        let store = store(&disk, &app);
        let look = || retention::look(&app, &store, &queue, 0, &AtomicBool::new(false)).removed;
        assert!(look() >= 2);
        for visitor in 200..202 {
            hit(&app, visitor, None);
            snapshots::take(&app, &store, &queue, &AtomicBool::new(false)).unwrap();
        }
        app.journal.stop().unwrap();
    }
    let name = |beginning: &str| {
        let names = disk.list().unwrap().into_iter();
        names.filter(|name| name.starts_with(beginning)).min().unwrap()
    };
    let base = name("base-");
    let snapshot = oldest_kept(&disk);
    // In a slot's entries: header, end and the list of parts are sound.
    let mut bytes = disk.bytes(&base);
    bytes[64 + 32 + 100] ^= 1;
    disk.put(&base, bytes);
    // Everything is old by then, and two snapshots cover it.
    let app = open(folder.path(), &disk, later().plus(DAY * 60));
    let store = store(&disk, &app);
    assert!(store.base(app.journal.first()).unwrap().is_some(), "it can be opened");
    retention::look(&app, &store, &queue, 0, &AtomicBool::new(false));
    assert_eq!(app.retention.failed.load(Ordering::Relaxed), 0);
    let taken = store.base(app.journal.first()).unwrap().unwrap();
    taken.verify(None).unwrap();
    assert_eq!(snapshot, format!("snapshot-{:016x}.snap", taken.head.from.ordinal()));
}

/// The older of the snapshots that are kept.
fn oldest_kept(disk: &SimDisk) -> String {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("snapshot-"));
    names.sort_unstable();
    names.remove(names.len() - snapshots::KEPT)
}

#[test]
fn a_base_of_an_earlier_incarnation_is_made_anew_while_the_journal_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    for new_incarnation in [false, true, false] {
        let app = open_at(folder.path(), &disk, later(), Arc::default(), new_incarnation);
        let store = store(&disk, &app);
        // Somebody reads it: nothing goes, but the base is there.
        let _follower = app.journal.follow(engine::id::Position(1));
        retention::look(&app, &store, &queue, 0, &AtomicBool::new(false));
        assert_eq!(app.journal.first(), engine::id::Position(1));
        let base = store.base(app.journal.first()).unwrap().unwrap();
        assert_eq!(base.head.incarnation, app.journal.incarnation());
        app.journal.stop().unwrap();
    }
}

#[test]
fn a_snapshot_of_a_site_where_nobody_comes_any_more_is_the_state_of_its_moment() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    let app = open(folder.path(), &disk, later());
    let store = store(&disk, &app);
    // Every browser is forgotten by then, and no record says so.
    assert!(app.clock.set(later().plus(DAY * 4_000)));
    let (end, _) = snapshots::take(&app, &store, &queue, &AtomicBool::new(false)).unwrap();
    assert_eq!(end.visitors, 0);
    app.journal.stop().unwrap();
    let data = folder_of(folder.path(), &disk);
    let report = verify(data.path(), &verify::Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
}

#[test]
fn after_a_start_what_was_replayed_is_worth_a_snapshot_though_nobody_comes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    let app = open(folder.path(), &disk, later());
    hit(&app, 300, None);
    app.journal.stop().unwrap();
    drop(app);
    let mut app = open(folder.path(), &disk, later());
    app.settings.snapshots.every = Duration::ZERO;
    let (store, stop) = (store(&disk, &app), AtomicBool::new(false));
    let mut looks = Vec::new();
    snapshots::run(&app, &store, &queue, &stop, &mut |taken| {
        looks.push(taken);
        stop.store(looks.len() == 2, Ordering::Release);
    });
    assert_eq!(looks, [true, false]);
}

#[test]
fn a_record_of_a_clock_that_was_set_right_is_not_the_moment_of_the_base() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived_since(folder.path(), BEGIN, &|app, day| {
        if day == 0 {
            visit_at(app, BEGIN.plus(DAY * 4_000), (400, "/column/400"), None);
        }
    });
    let app = open(folder.path(), &disk, later());
    let store = store(&disk, &app);
    assert!(retention::look(&app, &store, &queue, 0, &AtomicBool::new(false)).removed >= 2);
    let base = store.base(app.journal.first()).unwrap().unwrap();
    assert_eq!(base.head.created, BEGIN.plus(DAY));
    assert!(base.end.visitors > 30, "nobody was away for years");
}

#[test]
fn a_snapshot_that_cannot_be_written_costs_nothing_and_the_next_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let disk = lived(folder.path());
    let app = open(folder.path(), &disk, later());
    let store = store(&disk, &app);
    let before = store.names().unwrap();
    let take = || snapshots::take(&app, &store, &queue, &AtomicBool::new(false));
    disk.limit(Some(disk.used() + 1_000));
    assert!(matches!(take(), Err(snapshots::Failed::File(_))));
    assert_eq!(store.names().unwrap(), before, "those that are there stay");
    for name in &before {
        store.open(name).unwrap().verify(None).unwrap();
    }
    disk.limit(None);
    hit(&app, 7, None);
    take().unwrap();
    let names = store.names().unwrap();
    assert_eq!((names.len(), &names[1]), (2, &before[0]));
    let unfinished = disk.list().unwrap().into_iter().filter(|name| name.ends_with(UNFINISHED));
    assert_eq!(
        unfinished.collect::<Vec<_>>(),
        [SPARE],
        "the next one is written over what is left"
    );
}
