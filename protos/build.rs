//! Makes Rust of the .proto files: prost's messages, and the tables by which `shape.rs` looks at
//! bytes before prost does. Needs no `protoc`.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
};

const FILES: [&str; 9] = [
    "delegate.proto",
    "link.proto",
    "bus.proto",
    "order.proto",
    "answer.proto",
    "join.proto",
    "content.proto",
    "output.proto",
    "collect.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let set = protox::compile(FILES, ["proto"])?;
    let shapes = shapes(&set)?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(set)?;
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("shapes.rs"), shapes)?;
    Ok(())
}

/// One `static NAME: Message` for each message of the files.
fn shapes(set: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut code = String::new();
    for message in set.file.iter().flat_map(|file| &file.message_type) {
        if !message.nested_type.is_empty() || message.field.len() > 32 {
            return Err(format!("{} nests, or has over 32 fields", message.name()).into());
        }
        let name = message.name();
        writeln!(code, "pub(crate) static {}: Message = Message {{", constant(name))?;
        writeln!(code, "    name: {name:?},\n    fields: &[")?;
        for field in &message.field {
            writeln!(code, "        {},", shape(message, field)?)?;
        }
        writeln!(code, "    ],\n}};")?;
    }
    Ok(code)
}

fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> Result<String, String> {
    let kind = match field.r#type() {
        Type::Bool => "Number(1)".to_owned(),
        Type::Uint32 | Type::Sint32 => "Number(u32::MAX as u64)".to_owned(),
        Type::Enum => "Number(i32::MAX as u64)".to_owned(),
        Type::Uint64 => "Number(u64::MAX)".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::String => "Text".to_owned(),
        Type::Message => {
            let name = field.type_name().rsplit('.').next().unwrap_or_default();
            format!("Message(&{})", constant(name))
        }
        other => return Err(format!("{}: the wire has no {other:?}", message.name())),
    };
    let (number, name) = (field.number(), field.name());
    let many = field.label() == Label::Repeated;
    let one_of = field.oneof_index;
    Ok(format!(
        "Field {{ number: {number}, name: {name:?}, kind: Kind::{kind}, many: {many}, \
         one_of: {one_of:?} }}"
    ))
}

/// `OrderBody` as `ORDER_BODY`.
fn constant(name: &str) -> String {
    let mut constant = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            constant.push('_');
        }
        constant.push(letter.to_ascii_uppercase());
    }
    constant
}
