//! The first acceptance story, told to a world: a reader becomes hot.

use super::world::World;

pub const TANAKA: &str = "tanaka@sample-seiki.example";

/// Monday to Friday of story 1, up to the form.
pub fn reads(mut world: World) -> World {
    world.at("2026-12-01 09:00").view("/column/dx").stay(70);
    world.at("2026-12-01 09:04").view("/case/line").stay(65);
    world.at("2026-12-04 09:30").view("/product/a");
    world.at("2026-12-04 09:32").view("/product/b");
    world.at("2026-12-04 09:34").view("/product/c");
    world.at("2026-12-04 09:40").view("/pricing/").stay(80);
    world.at("2026-12-04 09:50").form(TANAKA, "/thanks/document/guide");
    world
}

/// The whole of it.
pub fn story_one(world: World) -> World {
    let mut world = reads(world);
    world.at("2026-12-07 08:55").click_mail(TANAKA);
    world.at("2026-12-07 08:56").view("/pricing/");
    world
}

/// Story 1 and the stay after it: 75.922.
pub fn story_two(world: World) -> World {
    let mut world = story_one(world);
    world.stay(80);
    world
}
