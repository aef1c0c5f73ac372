//! How requests fail: a closed set.

/// Why the data plane answered by itself, or gave up: a closed set, since it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ErrorKind {
    /// The client's request is malformed or refused for its form.
    BadRequest = 0,
    /// The request has more header fields than it may.
    TooManyFields,
    /// The request's body is larger than it may be.
    BodyTooLarge,
    /// Nothing of the request's body came for too long.
    BodyTimeout,
    /// The client asks for what is not carried here.
    Unsupported,
    /// The client went away before the answer was complete.
    ClientClosed,
    /// The gate is closed and the policy is `reject`.
    NotReady,
    /// The request was held as long as it may.
    HoldTimeout,
    /// As many requests wait as may.
    QueueFull,
    /// The app's port refused for as long as the request may be held.
    ConnectRefused,
    /// No connection to the app within `timeouts.connect`.
    ConnectTimeout,
    /// No connection to the app, for another reason.
    ConnectFailed,
    /// The app closed or reset the connection before its answer came.
    UpstreamClosed,
    /// The app's answer is not HTTP.
    UpstreamProtocol,
    /// The app's answer broke off.
    UpstreamBroken,
    /// No answer within `timeouts.response`.
    ResponseTimeout,
    /// The app's port accepts, and no TLS connection comes of it.
    UpstreamTls,
    /// A client's TLS handshake failed.
    TlsHandshake,
    /// A request that is not ours came where only our own may come.
    Forbidden,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::TooManyFields,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::Unsupported,
        Self::ClientClosed,
        Self::NotReady,
        Self::HoldTimeout,
        Self::QueueFull,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::UpstreamBroken,
        Self::ResponseTimeout,
        Self::UpstreamTls,
        Self::TlsHandshake,
        Self::Forbidden,
        Self::Internal,
    ];

    /// Whether it is the app that failed.
    pub const fn is_the_apps(self) -> bool {
        match self {
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamProtocol
            | Self::UpstreamBroken
            | Self::ResponseTimeout => true,
            Self::BadRequest
            | Self::TlsHandshake
            | Self::Forbidden
            | Self::TooManyFields
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Unsupported
            | Self::ClientClosed
            | Self::NotReady
            | Self::HoldTimeout
            | Self::QueueFull
            | Self::Internal => false,
        }
    }

    /// The name used as a label and in `x-readygate-error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooManyFields => "too_many_fields",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Unsupported => "unsupported",
            Self::ClientClosed => "client_closed",
            Self::NotReady => "not_ready",
            Self::HoldTimeout => "hold_timeout",
            Self::QueueFull => "queue_full",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamBroken => "upstream_broken",
            Self::ResponseTimeout => "response_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::TlsHandshake => "tls_handshake",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_place() {
        for (at, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
