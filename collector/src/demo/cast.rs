//! Who visits the sample site, and what they do there: one main character after the other, and
//! three in the background. Nothing here knows of scores; they only browse.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::browser::{Browser, Lost};
use super::{Event, Places, STORY_MAX};
use crate::app::App;

/// Between two stories.
const PAUSE: Duration = Duration::from_secs(10);

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
    (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
const FIREFOX: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0";
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 \
    (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
const ROBOT: &str = "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)";

const SEARCH: &str = "https://www.google.com/";

/// What somebody writes into a form.
#[derive(Debug)]
pub(super) struct Person {
    /// Name.
    pub name: &'static str,
    /// Company.
    pub company: &'static str,
    /// Title.
    pub title: &'static str,
    /// Address; the reserved name leads nowhere.
    pub email: &'static str,
    agent: &'static str,
}

const MAIN: [Person; 3] = [
    Person {
        name: "田中 恵",
        company: "株式会社例示製作所",
        title: "課長",
        email: "megumi.tanaka@reiji.example",
        agent: CHROME,
    },
    Person {
        name: "森 大輔",
        company: "見本電機株式会社",
        title: "部長",
        email: "daisuke.mori@mihon-denki.example",
        agent: FIREFOX,
    },
    Person {
        name: "佐々木 優希",
        company: "例題テック株式会社",
        title: "代表取締役",
        email: "yuki.sasaki@reidai-tech.example",
        agent: SAFARI,
    },
];

const CALM: Person = Person {
    name: "佐藤 健二",
    company: "雛形工業株式会社",
    title: "主任",
    email: "kenji.sato@hinagata.example",
    agent: FIREFOX,
};

/// One thing somebody does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Opens a page.
    Open(&'static str),
    /// Reads it, for milliseconds.
    Read(u64),
    /// Sends its form.
    Form,
}

use Step::{Form, Open, Read};

/// Reads, compares, looks at prices and stays, gets the guide, asks for a quote.
const BUYS: [Step; 22] = [
    Read(1_000),
    Open("/"),
    Read(1_500),
    Open("/column/dx/"),
    Read(1_500),
    Open("/product/a/"),
    Read(1_200),
    Open("/product/b/"),
    Read(1_200),
    Open("/product/c/"),
    Read(1_500),
    Open("/pricing/"),
    Read(6_000),
    Open("/document/"),
    Read(2_000),
    Form,
    Open("/thanks/document/guide/"),
    Read(2_000),
    Open("/contact/"),
    Read(2_000),
    Form,
    Open("/thanks/contact/ok/"),
];
/// Comes by a search, reads a little, stays nobody.
const PASSES: [Step; 7] = [
    Read(4_000),
    Open("/case/line/"),
    Read(5_000),
    Open("/product/b/"),
    Read(15_000),
    Open("/careers/"),
    Read(4_000),
];
/// Comes when the main character has left; gets the guide and no further: known, never hot.
const WONDERS: [Step; 9] = [
    Read(21_500),
    Open("/column/dx/"),
    Read(2_500),
    Open("/document/"),
    Read(2_500),
    Form,
    Open("/thanks/document/guide/"),
    Read(2_000),
    Open("/case/line/"),
];
/// A search engine's robot that runs scripts.
const CRAWLS: [Step; 4] = [Read(5_000), Open("/pricing/"), Read(20_000), Open("/product/a/")];

async fn act(browser: &mut Browser, person: &Person, steps: &[Step]) -> Result<(), Lost> {
    for step in steps {
        match step {
            Open(path) => browser.open(path, SEARCH).await?,
            Read(ms) => sleep(Duration::from_millis(*ms)).await,
            Form => browser.submit(person).await?,
        }
    }
    browser.leave().await?;
    Ok(())
}

/// Plays story after story, each with the next person, for as long as the runtime lives. A story
/// follows when `told` says that the one before was told, or when its time is over.
pub(super) async fn play(
    places: Places,
    app: Arc<App>,
    events: mpsc::Sender<Event>,
    mut told: watch::Receiver<u64>,
) {
    let browser = |agent| Browser::new(&app, places, agent);
    // People come back with the browser they had.
    let mut browsers = MAIN.each_ref().map(|person| browser(person.agent));
    let mut calm = browser(CALM.agent);
    for round in 0.. {
        let at = round % MAIN.len();
        let before = *told.borrow_and_update();
        let (mut passer, mut robot) = (browser(SAFARI), browser(ROBOT));
        let played = tokio::join!(
            act(&mut browsers[at], &MAIN[at], &BUYS),
            act(&mut calm, &CALM, &WONDERS),
            act(&mut passer, &CALM, &PASSES),
            act(&mut robot, &CALM, &CRAWLS),
        );
        for lost in [played.0, played.1, played.2, played.3].into_iter().filter_map(Result::err) {
            // Nobody watches any more at the end.
            let _ = events.send(Event::Trouble(lost.to_string())).await;
        }
        let waited = timeout(STORY_MAX, told.wait_for(|count| *count > before)).await;
        // Whoever tells is gone: the demo has ended.
        if waited.is_ok_and(|told| told.is_err()) {
            return;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_longer_than_a_story_may() {
        for steps in [&BUYS[..], &PASSES, &WONDERS, &CRAWLS] {
            let reads = steps.iter().map(|step| if let Read(ms) = step { *ms } else { 0 });
            assert!(Duration::from_millis(reads.sum()) < STORY_MAX / 2);
        }
    }
}
