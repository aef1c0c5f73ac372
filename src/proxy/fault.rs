//! Why a message is refused for its form: what two parsers could read differently, or what no HTTP message says.

/// The first thing that is wrong with a request, or with an answer. Shown in the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "the request line is not a method, a target and HTTP/1.0 or HTTP/1.1 with one space between each"
    )]
    RequestLine,
    #[error("the request line is longer than 16 KiB")]
    LongLine,
    #[error("the target has a byte that must be escaped, or a fragment")]
    TargetByte,
    #[error("the target is not in a form that this method takes")]
    TargetForm,
    #[error("CONNECT is not for an app behind a sidecar")]
    Connect,
    #[error("a line ends with LF alone")]
    BareLf,
    #[error("a CR without its LF")]
    BareCr,
    #[error("a field goes on in the next line")]
    Fold,
    #[error("a field's name is empty, has a byte that no name has, or is not followed by a colon")]
    Name,
    #[error("a field's value has a control character")]
    Value,
    #[error("Content-Length is not one number of at most 19 digits in one line")]
    ContentLength,
    #[error("Transfer-Encoding is not one line that says chunked, in HTTP/1.1")]
    TransferEncoding,
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    #[error("Host is missing, comes twice, or is not an authority")]
    Host,
    #[error("Host and the target name different authorities")]
    Authority,
    #[error("Connection names a field that must reach the app")]
    Connection,
    #[error("a field of HTTP/1 connections in HTTP/2, or a value with blanks around it")]
    Http2Field,
    #[error("a body in a request that asks for another protocol")]
    UpgradeBody,
    #[error("a chunk's size, its end or its extensions are malformed")]
    Chunk,
    #[error("a trailer that frames or addresses the message")]
    Trailer,
}
