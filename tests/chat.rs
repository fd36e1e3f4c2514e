//! A conversation answers as if all of it were asked at once, and computes nothing twice.

mod common;

use burn::prelude::*;
use std::path::{Path, PathBuf};
use victor::parts::backend::VictorBackend;
use victor::parts::model::{KvCache, Sequence};
use victor::{
    Chat, ChatOptions, Completion, Content, Device, DeviceTask, Engine, FinishReason,
    GenerateOptions, Message, ModelFiles, OpenOptions, Prompt, Request, RgbImage, Role, Sampler,
    Victor, VictorError,
};

/// What the user does in one turn: the pictures shown and the words said.
type Doing<'a> = (&'a [&'a str], &'a str);

/// The CPUs: GPUs of the CI are software, on which this would take minutes; `properties.rs` has them
/// prefill in parts.
fn devices() -> Vec<Device> {
    let cpus = [Device::Flex, Device::NdArray];
    let devices = common::devices().into_iter();
    devices.filter(|device| cpus.contains(device)).collect()
}

fn open(folder: &Path, device: Device) -> Victor {
    Victor::from_pretrained(folder, device).expect("a model")
}

fn default_weights() -> PathBuf {
    victor::default_weights().expect("weights")
}

fn picture(name: &str) -> RgbImage {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures");
    let path = match name {
        name if name.ends_with("strawberry") => bundled.join("strawberry.png"),
        name => common::golden().join(name),
    };
    victor::decode_image(&path).expect("a picture")
}

fn options(max_new_tokens: usize) -> ChatOptions {
    ChatOptions {
        generate: GenerateOptions {
            max_new_tokens,
            ..Default::default()
        },
        system: None,
    }
}

/// Says one thing and returns the whole answer.
fn say(chat: &mut Chat<'_>, text: &str) -> Completion {
    let mut turn = chat.say(text).expect("it fits");
    let mut shown = String::new();
    for token in &mut turn {
        shown.push_str(&token.expect("a token").text);
    }
    let completion = turn.completion();
    assert_eq!(shown, completion.text);
    completion
}

/// The answer to a conversation asked at once.
fn at_once(model: &Victor, said: &[Message], images: &[RgbImage], how: &ChatOptions) -> Completion {
    let request = Request {
        prompt: Prompt::Chat(said.to_vec()),
        images: images.to_vec(),
    };
    let answers = model.generate_batch(&[request], &how.generate);
    answers.expect("an answer").0.swap_remove(0)
}

/// Leads a conversation and holds every answer against that of asking at once; returns the answers.
fn compare(model: &Victor, doings: &[Doing<'_>], how: &ChatOptions) -> Vec<Completion> {
    let mut chat = model.chat(how.clone()).expect("a conversation");
    let (mut images, mut answers) = (Vec::new(), Vec::new());
    for (pictures, text) in doings {
        for name in *pictures {
            images.push(picture(name));
            chat.add_image(images.last().expect("one")).expect("added");
        }
        let found = say(&mut chat, text);
        let said = &chat.messages()[..chat.messages().len() - 1];
        let expected = at_once(model, said, &images, how);
        assert_eq!(found, expected, "{said:?} on {}", model.device());
        answers.push(found);
    }
    let usage = chat.usage();
    assert_eq!(usage.encoded_pictures, images.len());
    assert_eq!(usage.restarts, 0, "{:?}", chat.messages());
    // A row is prefilled once: all that were not generated, and the last token of an answer cut short.
    let ended = |answer: &Completion| answer.finish_reason == FinishReason::Stop;
    let decoded: usize = answers.iter().map(|answer| answer.ids.len() - 1).sum();
    let unfed = usize::from(!ended(answers.last().expect("one")));
    assert_eq!(usage.prefilled_rows + decoded + unfed, usage.rows);
    answers
}

#[test]
fn the_default_model_answers_as_if_asked_at_once() {
    for device in devices() {
        let model = open(&default_weights(), device);
        let first: &[Doing] = &[
            (&["strawberry"], "Describe the picture."),
            (&[], "What colour is it?"),
            (&[], "Is it a fruit?"),
        ];
        let later: &[Doing] = &[
            (&["strawberry"], "Describe the picture."),
            (&["victor-vicuna-m4-k3/image.png"], "Describe the picture."),
        ];
        let answers = compare(&model, first, &options(40));
        assert_eq!(answers[0].text.trim(), "A picture of strawberry.");
        assert_eq!(answers[0].finish_reason, FinishReason::Stop);
        compare(&model, later, &options(40));
        // Answers cut short by the limit go on in the cache all the same.
        let cut = compare(&model, first, &options(3));
        assert_eq!(cut[0].finish_reason, FinishReason::Length);
        compare(&model, later, &options(3));
    }
}

/// Leads a conversation whose answers no tokenizer would spell so, which asking at once does, and
/// computes every answer again from the ids before it.
struct FromIds<'a> {
    case: &'a str,
    doings: &'a [Doing<'a>],
}

impl DeviceTask for FromIds<'_> {
    type Output = ();

    fn run<B: VictorBackend>(self, device: B::Device) {
        let files = ModelFiles::open(&common::golden().join(self.case).into());
        let open = OpenOptions::default();
        let engine = Engine::<B>::load(files.expect("files"), &device, &open);
        let engine = engine.expect("a checkpoint");
        let mut chat = engine.chat(options(6)).expect("a conversation");
        let mut images = Vec::new();
        for (pictures, text) in self.doings {
            for name in *pictures {
                images.push(picture(&format!("{}/{name}", self.case)));
                chat.add_image(images.last().expect("one")).expect("added");
            }
            let answer = say(&mut chat, text);
            let ended = usize::from(answer.finish_reason == FinishReason::Stop);
            let prompt = chat.ids().len() - (answer.ids.len() - ended);
            let expected = greedy(&engine, &chat.ids()[..prompt], &images, answer.ids.len());
            assert_eq!(answer.ids, expected, "{}: {text}", self.case);
        }
        assert_eq!(chat.usage().encoded_pictures, images.len());
        assert_eq!(chat.usage().restarts, 0);
    }
}

/// Greedy tokens after a prompt, computed at once.
fn greedy<B: VictorBackend>(
    engine: &Engine<B>,
    ids: &[u32],
    images: &[RgbImage],
    count: usize,
) -> Vec<u32> {
    let (model, device) = (&engine.model, engine.model.device());
    let visual = images.iter().map(|image| {
        let processor = engine.processor.as_ref().expect("a processor");
        let pixels = processor.preprocess(image).expect("pixels");
        let shape = [1, pixels.channels, pixels.height, pixels.width];
        let pixels = Tensor::from_data(TensorData::new(pixels.values, shape), &device);
        model.project(model.encode_images(pixels))
    });
    let visual: Vec<Tensor<B, 2>> = visual.collect();
    let picture = model.config().picture.as_ref();
    let image_token = picture.map(|picture| picture.image_token_index);
    let mut sequence = Sequence::text(ids.to_vec());
    for visual in &visual {
        let from = sequence.image_spans.last().map_or(0, |span| span.end);
        let marker = |id: &u32| Some(*id) == image_token;
        let start = from + ids[from..].iter().position(marker).expect("a picture");
        sequence.image_spans.push(start..start + visual.dims()[0]);
    }
    let layout = model.layout(&[sequence]).expect("a layout");
    let mut cache = KvCache::new(model.config().text_config.num_hidden_layers);
    let visual = (!visual.is_empty()).then(|| Tensor::cat(visual, 0));
    let mut logits = model.prefill(&layout, visual, &mut cache);
    let mut tokens = Vec::new();
    while tokens.len() < count {
        let mut values = logits.into_data().convert::<f32>();
        let values = values.as_mut_slice().expect("floats");
        tokens.push(Sampler::new(Default::default(), 0, &[]).sample(values));
        logits = model.decode(&tokens[tokens.len() - 1..], &mut cache);
    }
    tokens
}

#[test]
fn a_picture_may_come_after_words() {
    let weights = default_weights();
    // To a question without a picture the default model says a full stop with no blank before it.
    let doings: &[Doing] = &[
        (&[], "What do you see?"),
        (&["strawberry"], "Describe the picture."),
        (&[], "Is it a fruit?"),
    ];
    for device in devices() {
        let case = weights.to_str().expect("UTF-8");
        let task = FromIds { case, doings };
        device.run(task).expect("compiled in");
    }
}

#[test]
fn random_models_answer_as_if_asked_at_once() {
    let one: &[&str] = &["image.png"];
    let first: &[Doing] = &[(one, "Describe it."), (&[], "More."), (&[], "Why?")];
    let later: &[Doing] = &[
        (&[], "Hello."),
        (one, "Look."),
        (&[], "And?"),
        (one, "Again."),
    ];
    let two: &[Doing] = &[
        (&["image1.png"], "This?"),
        (&["image2.png", "image1.png"], "Are they the same?"),
        (&[], "Sure?"),
    ];
    for device in devices() {
        for (case, doings) in [
            ("victor-vicuna-m4-k3", first),
            ("victor-vicuna-m4-k3", later),
            ("victor-llama3-m1-k1", first),
            ("victor-llama3-m1-k1", later),
            ("victor-two-images-m4-k2", two),
            ("llava15-vicuna", later),
            ("llava15-llama3", later),
            ("llava15-two-images", two),
        ] {
            let task = FromIds { case, doings };
            device.run(task).expect("compiled in");
        }
    }
}

/// A copy of the default weights with another chat template.
fn with_template(template: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(default_weights()).expect("the weights") {
        let path = entry.expect("an entry").path();
        let to = copy.path().join(path.file_name().expect("a name"));
        std::fs::copy(&path, to).expect("copied");
    }
    let path = copy.path().join("chat_template.jinja");
    std::fs::write(path, template).expect("written");
    copy
}

#[test]
fn a_template_that_rewrites_history_costs_no_picture() {
    // How many turns there are stands above them.
    let folder = with_template(
        "{{ messages | length }} {% for m in messages %}{% if m.role == 'user' %}USER: {% for c in m.content %}\
         {% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %} {% else %}\
         ASSISTANT: {{ m.content[0].text }}</s>{% endif %}{% endfor %}ASSISTANT:",
    );
    let model = open(folder.path(), Device::Flex);
    let how = options(20);
    let mut chat = model.chat(how.clone()).expect("a conversation");
    let mut images = vec![picture("strawberry")];
    chat.add_image(&images[0]).expect("added");
    say(&mut chat, "Describe the picture.");
    images.push(picture("victor-vicuna-m4-k3/image.png"));
    chat.add_image(&images[1]).expect("added");
    for (turn, text) in ["And this one?", "Sure?"].into_iter().enumerate() {
        let found = say(&mut chat, text);
        let said = &chat.messages()[..chat.messages().len() - 1];
        assert_eq!(found, at_once(&model, said, &images, &how), "{said:?}");
        assert_eq!(chat.usage().encoded_pictures, 2);
        assert_eq!(chat.usage().restarts, turn + 1);
    }
}

#[test]
fn what_was_shown_is_what_is_remembered() {
    let model = open(&default_weights(), Device::Flex);
    let how = options(40);
    let image = picture("strawberry");
    // Dropped at once, after some tokens, and when it has ended but was not told so.
    for taken in [0, 1, 3, 7] {
        let mut chat = model.chat(how.clone()).expect("a conversation");
        chat.add_image(&image).expect("added");
        let turn = chat.say("Describe the picture.").expect("it fits");
        let shown: String = turn
            .take(taken)
            .map(|token| token.expect("one").text)
            .collect();
        assert_eq!(chat.messages()[1], Message::text(Role::Assistant, &*shown));
        let found = say(&mut chat, "What is it used for?");
        let said = chat.messages()[..3].to_vec();
        assert_eq!(
            found,
            at_once(&model, &said, std::slice::from_ref(&image), &how),
            "{shown:?}"
        );
        assert_eq!(chat.usage().restarts, 0, "{shown:?}");
        assert_eq!(chat.usage().encoded_pictures, 1);
    }
}

#[test]
fn stop_strings_leave_nothing_behind() {
    let model = open(&default_weights(), Device::Flex);
    let image = picture("strawberry");
    // The first cuts between two tokens, the second within one: that answer is read again as text.
    for (stop, shown, restarts) in [(" of", "A picture", 0), ("icture", "A p", 1)] {
        let mut how = options(40);
        how.generate.stop_strings = vec![stop.into()];
        let mut chat = model.chat(how.clone()).expect("a conversation");
        chat.add_image(&image).expect("added");
        assert_eq!(say(&mut chat, "Describe the picture.").text.trim(), shown);
        let found = say(&mut chat, "What colour is it?");
        let said = chat.messages()[..3].to_vec();
        assert_eq!(
            found,
            at_once(&model, &said, std::slice::from_ref(&image), &how),
            "{stop:?}"
        );
        assert_eq!(chat.usage().restarts, restarts, "{stop:?}");
        assert_eq!(chat.usage().encoded_pictures, 1);
    }
}

#[test]
fn a_full_conversation_says_so_and_goes_on() {
    let model = open(&default_weights(), Device::Flex);
    let how = options(20);
    let mut chat = model.chat(how.clone()).expect("a conversation");
    let image = picture("strawberry");
    chat.add_image(&image).expect("added");
    say(&mut chat, "Describe the picture.");

    // Three pictures of 265 rows fit in 1024 positions, a fourth does not.
    let before = (chat.usage(), chat.messages().to_vec());
    chat.add_image(&image).expect("added");
    chat.add_image(&image).expect("added");
    let full = |error: Option<VictorError>| match error {
        Some(VictorError::ConversationFull {
            rows,
            left,
            context,
        }) => (rows, left, context),
        other => panic!("{other:?}"),
    };
    let left = 1024 - before.0.rows;
    let refused = full(chat.add_image(&image).err());
    assert_eq!(refused, (3 * 265, left, 1024));
    let (rows, room, _) = full(chat.say(&"word ".repeat(300)).err());
    assert!(rows > 2 * 265 + 300 && room == left, "{rows} {room}");
    let now = (chat.usage(), chat.messages().to_vec());
    assert_eq!((now, chat.waiting_images()), (before, 2));

    let images = vec![image.clone(); 3];
    let found = say(&mut chat, "And these?");
    let said = &chat.messages()[..3];
    assert_eq!(said[2].content[..2], [Content::Image, Content::Image]);
    assert_eq!(found, at_once(&model, said, &images, &how));

    chat.clear();
    assert_eq!((chat.messages().len(), chat.usage().rows), (0, 0));
    chat.add_image(&image).expect("added");
    let again = say(&mut chat, "Describe the picture.");
    assert_eq!(again.text.trim(), "A picture of strawberry.");
    assert_eq!(chat.usage().encoded_pictures, 4);
}

#[test]
fn bad_turns_change_nothing() {
    let model = open(&default_weights(), Device::Flex);
    let mut chat = model.chat(options(5)).expect("a conversation");
    let error = chat.say("What is in <image>?").err().expect("no picture");
    assert!(matches!(error, VictorError::Data(_)), "{error}");
    assert_eq!((chat.messages().len(), chat.usage().rows), (0, 0));
    say(&mut chat, "Hello.");

    let error = model.chat(options(0)).expect_err("no tokens");
    assert!(matches!(error, VictorError::Option { .. }), "{error}");
    let refuses = with_template("{{ raise_exception('no system turns') }}");
    let model = open(refuses.path(), Device::Flex);
    let system = ChatOptions {
        system: Some("Be brief.".into()),
        ..options(5)
    };
    let error = model.chat(system).expect_err("a refusal");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let told = format!("{error} {source:?}");
    assert!(told.contains("no system turns"), "{told}");
}
