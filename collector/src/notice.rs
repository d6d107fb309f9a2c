//! A text for a privacy policy, from the settings as they are: what is collected and sent, to
//! whom, why and for how long, in plain words. In Japan it is what the rule on sending a user's
//! information elsewhere (Telecommunications Business Act, article 27-12) wants to be said.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::{Endpoint, EndpointMode, Loaded, Settings, Site, SiteConsent};
use crate::cookie::{LIFE_DAYS, RENEW_DAYS};
use crate::outbox::look::Lang;

/// What of a person a receiver may be shown, in the order it is named.
const SHOWN: [(&str, &str, &str); 7] = [
    ("name", "氏名", "name"),
    ("email", "メールアドレス", "mail address"),
    ("phone", "電話番号", "telephone number"),
    ("company", "会社名", "company"),
    ("department", "部署名", "department"),
    ("title", "役職", "job title"),
    ("industry", "業種", "industry"),
];

/// The text.
pub fn notice(loaded: &Loaded, lang: Lang) -> String {
    let settings = &loaded.settings;
    let mut text = String::new();
    let mut part = |title: &str, lines: Vec<String>| {
        let _ = writeln!(text, "## {title}\n");
        for line in lines {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
    };
    match lang {
        Lang::Ja => {
            part("送信される情報", collected_ja(settings));
            part("Cookie と保存期間", kept_ja(settings));
            part("送信先", receivers_ja(loaded));
            part("利用目的", purposes_ja());
            part("同意について", settings.sites.iter().map(consent_ja).collect());
            part("開示・消去の求め", rights_ja(loaded));
        }
        Lang::En => {
            part("What is collected", collected_en(settings));
            part("Cookie, and how long it is kept", kept_en(settings));
            part("Who receives it", receivers_en(loaded));
            part("What it is for", purposes_en());
            part("Consent", settings.sites.iter().map(consent_en).collect());
            part("Your rights", rights_en(loaded));
        }
    }
    let title = match lang {
        Lang::Ja => "# アクセス情報の取り扱いについて",
        Lang::En => "# How we handle what your visit tells us",
    };
    format!("{title}\n\n{}", text.trim_end())
}

fn collected_ja(settings: &Settings) -> Vec<String> {
    let privacy = &settings.privacy;
    let mut lines = vec![
        "閲覧したページのURLと題名、参照元のページ、閲覧日時、滞在時間、スクロールの割合、\
         ページ上での操作(資料のダウンロードなど)"
            .to_owned(),
        format!(
            "IPアドレスの一部(IPv4は先頭{}ビット、IPv6は先頭{}ビットのみ。残りは保存しません)と、\
             ブラウザの大まかな種類",
            privacy.address_ipv4_bits, privacy.address_ipv6_bits
        ),
        "ブラウザを見分けるための番号(Cookie)".to_owned(),
        format!(
            "フォームに入力された氏名、メールアドレス、電話番号、会社名、部署名、役職{}。\
             パスワードなど、その他の入力内容は読み取りません",
            more_fields(settings, "、")
        ),
    ];
    lines.push(match privacy.query_names.as_slice() {
        [] => "URLの「?」以降の部分は保存しません".to_owned(),
        names => {
            format!("URLの「?」以降の部分は、次の項目だけを保存します: {}", names.join("、"))
        }
    });
    lines
}

fn collected_en(settings: &Settings) -> Vec<String> {
    let privacy = &settings.privacy;
    let mut lines = vec![
        "The address and title of each page you look at, the page you came from, when and how \
         long you looked, how far you scrolled, and what you did there, such as a download"
            .to_owned(),
        format!(
            "A part of your IP address (the first {} bits of IPv4, the first {} of IPv6; the rest \
             is not kept) and the general kind of your browser",
            privacy.address_ipv4_bits, privacy.address_ipv6_bits
        ),
        "A number that tells your browser from others (a cookie)".to_owned(),
        format!(
            "What you enter into a form as your name, mail address, telephone number, company, \
             department and job title{}. Passwords and everything else are not read",
            more_fields(settings, ", ")
        ),
    ];
    lines.push(match privacy.query_names.as_slice() {
        [] => "Nothing of what follows the ? in a page's address is kept".to_owned(),
        names => {
            format!("Of what follows the ? in a page's address only: {}", names.join(", "))
        }
    });
    lines
}

/// What the forms of the sites are read for besides.
fn more_fields(settings: &Settings, comma: &str) -> String {
    let fields = settings.sites.iter().flat_map(|site| site.form_fields.values());
    let usual = ["name", "email", "phone", "company", "department", "title"];
    let more: BTreeSet<&str> =
        fields.map(String::as_str).filter(|field| !usual.contains(field)).collect();
    more.into_iter().flat_map(|field| [comma, field]).collect()
}

fn kept_ja(settings: &Settings) -> Vec<String> {
    let name = &settings.cookie.name;
    let site = if settings.cookie.third_party {
        "この Cookie は、別のドメインのサイトでも使われます"
    } else {
        "この Cookie は、当社のサイトの中だけで使われます"
    };
    vec![
        format!(
            "Cookie「{name}」の有効期間は{LIFE_DAYS}日です。再訪時に{RENEW_DAYS}日ごとに更新されます"
        ),
        site.to_owned(),
        format!("最後の訪問から{LIFE_DAYS}日が過ぎると、ブラウザとの結び付きは失われます"),
        match days_kept(settings) {
            Some(days) => format!(
                "閲覧の記録は{days}日間保存し、その後2日以内に消去します。記録から計算した点数と、\
                 お知らせいただいた内容は、消去の求めがあるまで残ります"
            ),
            None => format!(
                "閲覧の記録は、期限を定めずに保存します(記録全体の大きさが{}に達すると、新しい\
                 記録をとりません)",
                size(settings.limits.journal_bytes_max)
            ),
        },
        "フォームの入力内容や通知の本文は、ご本人ごとの鍵で暗号化して保存します。消去の求めに\
         応じて鍵を破棄し、以後だれにも読めなくなります"
            .to_owned(),
    ]
}

fn kept_en(settings: &Settings) -> Vec<String> {
    let name = &settings.cookie.name;
    let site = if settings.cookie.third_party {
        "This cookie also serves sites on other domains"
    } else {
        "This cookie serves our own sites only"
    };
    vec![
        format!(
            "The cookie \"{name}\" lasts {LIFE_DAYS} days, and is renewed every {RENEW_DAYS} days \
             when you come back"
        ),
        site.to_owned(),
        format!("{LIFE_DAYS} days after your last visit your browser is no longer known"),
        match days_kept(settings) {
            Some(days) => format!(
                "What you did is kept for {days} days, and removed within two days after that. The \
                 points that came of it, and what you told us, stay until you ask to be erased"
            ),
            None => format!(
                "What you did is kept without a limit of time (when all records together reach \
                 {}, nothing new is recorded)",
                size(settings.limits.journal_bytes_max)
            ),
        },
        "What you enter into forms, and the messages about you, are encrypted under a key of \
         your own. If you ask to be erased the key is destroyed, and nobody can read them any more"
            .to_owned(),
    ]
}

/// How long what somebody did is kept, if not for ever.
fn days_kept(settings: &Settings) -> Option<u64> {
    settings.journal.keep.map(|keep| keep.as_secs() / 86_400)
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= GIB { format!("{} GiB", bytes / GIB) } else { format!("{} MiB", bytes >> 20) }
}

fn receivers_ja(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut lines = vec![format!(
        "閲覧の情報: 当社(受信するサーバー: {})。第三者のサーバーには直接送信されません",
        collector_host(settings)
    )];
    let real = loaded.endpoints.iter().filter(|endpoint| !endpoint.test);
    lines.extend(real.map(|endpoint| {
        let shown = fields(endpoint, Lang::Ja, "、");
        let hidden = hidden(endpoint, "、");
        let not = if hidden.is_empty() {
            String::new()
        } else {
            format!("。次の項目は送りません: {hidden}")
        };
        let off = match endpoint.mode {
            EndpointMode::Live => "",
            EndpointMode::Shadow => "(現在は送信していません)",
        };
        format!(
            "お問い合わせやご関心への対応に必要な情報: {} ({}){off}。送る項目は{shown}、閲覧した\
             ページ、関心の度合い{not}",
            endpoint.target.authority, endpoint.id
        )
    }));
    lines
}

fn receivers_en(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut lines = vec![format!(
        "What your visit tells: ourselves, at {}. Your browser sends it to nobody else",
        collector_host(settings)
    )];
    let real = loaded.endpoints.iter().filter(|endpoint| !endpoint.test);
    lines.extend(real.map(|endpoint| {
        let shown = fields(endpoint, Lang::En, ", ");
        let hidden = hidden(endpoint, ", ");
        let not = if hidden.is_empty() { String::new() } else { format!("; never: {hidden}") };
        let off = match endpoint.mode {
            EndpointMode::Live => "",
            EndpointMode::Shadow => " (nothing is sent there at present)",
        };
        format!(
            "What we need to answer you: {} ({}){off}, which gets your {shown}, the pages you \
             looked at, and how interested you seem{not}",
            endpoint.target.authority, endpoint.id
        )
    }));
    lines
}

fn fields(endpoint: &Endpoint, lang: Lang, comma: &str) -> String {
    let shown = SHOWN.iter().filter(|(name, ..)| !endpoint.hide.contains(*name));
    let words = shown.map(|(_, ja, en)| if lang == Lang::Ja { *ja } else { *en });
    words.collect::<Vec<_>>().join(comma)
}

fn hidden(endpoint: &Endpoint, comma: &str) -> String {
    endpoint.hide.iter().map(String::as_str).collect::<Vec<_>>().join(comma)
}

fn collector_host(settings: &Settings) -> String {
    let stated = settings.collector.public_url.clone();
    stated.unwrap_or_else(|| settings.collector.listen.to_string())
}

fn purposes_ja() -> Vec<String> {
    [
        "サイトのどのページが役に立っているかを知り、改善するため",
        "ご関心の内容と度合いを知り、営業担当者が適切な時期にご連絡するため",
        "お問い合わせや資料請求に対応するため",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn purposes_en() -> Vec<String> {
    [
        "To learn which pages help, and to make them better",
        "To see what interests you, and how much, so that our sales staff contact you at the \
         right time",
        "To answer your questions and requests",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn consent_ja(site: &Site) -> String {
    match site.consent {
        SiteConsent::Required => format!(
            "サイト「{}」: 同意をいただくまで、Cookie の設定も情報の保存も行いません",
            site.id
        ),
        SiteConsent::Assumed => format!(
            "サイト「{}」: 閲覧の開始とともに情報を送信します。停止(オプトアウト)の手続きは下記のとおりです",
            site.id
        ),
    }
}

fn consent_en(site: &Site) -> String {
    match site.consent {
        SiteConsent::Required => {
            format!("Site \"{}\": until you agree, no cookie is set and nothing is kept", site.id)
        }
        SiteConsent::Assumed => format!(
            "Site \"{}\": this begins with your visit. How to stop it is said below",
            site.id
        ),
    }
}

fn rights_ja(loaded: &Loaded) -> Vec<String> {
    let by_hand = match told_by_hand(loaded, "、").as_str() {
        "" => String::new(),
        names => format!("({names}には担当者が連絡します)"),
    };
    vec![
        "送信の停止(オプトアウト)は /optout のページから行えます".to_owned(),
        format!(
            "当社が保有するご本人の情報は、求めに応じて開示し、消去します。消去した場合は、\
             送信先にも消去を連絡します{by_hand}"
        ),
    ]
}

fn rights_en(loaded: &Loaded) -> Vec<String> {
    let by_hand = match told_by_hand(loaded, ", ").as_str() {
        "" => String::new(),
        names => format!(" ({names} by our staff)"),
    };
    vec![
        "You can stop this on the page /optout".to_owned(),
        format!(
            "On request we give you everything we hold about you, and erase it. Whoever received \
             it from us is then told to erase it too{by_hand}"
        ),
    ]
}

/// The receivers whose settings leave out that somebody was erased.
fn told_by_hand(loaded: &Loaded, comma: &str) -> String {
    let real = loaded.endpoints.iter().filter(|endpoint| !endpoint.test);
    let deaf = real.filter(|endpoint| !endpoint.hears_of_erasures());
    deaf.map(|endpoint| endpoint.id.as_str()).collect::<Vec<_>>().join(comma)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Files, Surroundings};

    fn text(mikomi: &str, endpoints: &str, lang: Lang) -> String {
        let site = "[[site]]\nid = \"www\"\nkey = \"www\"\nconsent = \"assumed\"\n\
                    origins = [\"https://www.vendor.example\"]\n";
        let mikomi =
            if mikomi.contains("[[site]]") { mikomi.to_owned() } else { format!("{mikomi}{site}") };
        let mut files = Files::default();
        files.contents[0] = Some(mikomi.into_bytes());
        files.contents[2] = Some(endpoints.as_bytes().to_vec());
        let loaded = config::load(&files, &Surroundings::default());
        notice(&loaded.unwrap(), lang)
    }

    const SFA: &str = "[[endpoint]]\nid = \"sfa\"\nurl = \"https://sfa.example.jp/h?key=secret\"\n\
                       secrets = [\"whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ==\"]\n";

    #[test]
    fn every_setting_that_matters_to_a_visitor_changes_the_text() {
        for lang in [Lang::Ja, Lang::En] {
            let usual = text("", SFA, lang);
            for (mikomi, endpoints) in [
                ("[cookie]\nname = \"mk2\"\n", SFA),
                ("[cookie]\nthird_party = true\nsecure = \"always\"\n", SFA),
                ("[privacy]\naddress_ipv4_bits = 16\n", SFA),
                ("[privacy]\nquery_names = []\n", SFA),
                ("[limits]\njournal_bytes_max = 1073741824\n", SFA),
                ("[journal]\nkeep_days = 90\n", SFA),
                ("[collector]\npublic_url = \"https://t.vendor.example\"\n", SFA),
                ("", ""),
                ("", &format!("{SFA}mode = \"live\"\n")),
                ("", &format!("{SFA}hide = [\"email\", \"phone\"]\n")),
                ("", &format!("{SFA}types = [\"lead.hot\"]\n")),
            ] {
                assert_ne!(text(mikomi, endpoints, lang), usual, "{mikomi} {endpoints}");
            }
            let strict = "[[site]]\nid = \"www\"\nkey = \"www\"\nconsent = \"required\"\n\
                          origins = [\"https://www.vendor.example\"]\n\
                          [site.form_fields]\n\"budget\" = \"budget\"\n";
            let strict = text(strict, SFA, lang);
            assert!(strict != usual && strict.contains("budget"), "{strict}");
        }
    }

    #[test]
    fn how_long_it_is_kept_is_what_the_settings_say() {
        let kept = "[journal]\nkeep_days = 90\n";
        for (lang, days, never) in [
            (Lang::Ja, "閲覧の記録は90日間保存し、その後2日以内に消去します", "期限を定めずに保存"),
            (Lang::En, "kept for 90 days, and removed within two days", "without a limit of time"),
        ] {
            let (some, all) = (text(kept, SFA, lang), text("", SFA, lang));
            assert!(some.contains(days) && !some.contains(never), "{some}");
            assert!(all.contains(never), "{all}");
        }
    }

    #[test]
    fn it_says_what_goes_to_whom_and_why_and_prints_no_secret() {
        let endpoints = format!("{SFA}mode = \"live\"\nhide = [\"email\"]\n");
        let ja = text("", &endpoints, Lang::Ja);
        for word in
            ["送信される情報", "送信先", "利用目的", "sfa.example.jp", "400日", "電話番号、会社名"]
        {
            assert!(ja.contains(word), "{word}: {ja}");
        }
        assert!(
            ja.contains("次の項目は送りません: email")
                && !ja.contains("氏名、メールアドレス、電話番号、会社名、部署名、役職、業種")
        );
        let en = text("", &endpoints, Lang::En);
        for word in ["your name, telephone number", "never: email", "400 days", "/optout"] {
            assert!(en.contains(word), "{word}: {en}");
        }
        assert!(!ja.contains("secret") && !en.contains("secret"), "an address may hold a key");
    }
}
