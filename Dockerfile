# The chat server, and the clients for a look at it. tests/image.sh plays this file where no container engine runs.

FROM debian:12-slim AS build
WORKDIR /chatproto
COPY . .
RUN sh cmake/install-programs.sh /opt/chatproto

FROM debian:12-slim
# For Redis, secrets, files of histories, TLS, WebSocket and the terminal client.
RUN apt-get -qq update && \
    apt-get -qq install --no-install-recommends libedit2 libhiredis0.14 libhttp-parser2.9 libsodium23 libsqlite3-0 \
      libssl3 libwslay1 && \
    rm -r /var/lib/apt/lists/*
COPY --from=build /opt/chatproto /usr/local
# Nobody, by number: some engines must be told so to see that it is not root.
USER 65534:65534
EXPOSE 47374
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD sender 127.0.0.1 47374 health </dev/null
# Drained before the ten seconds are over after which engines kill.
ENTRYPOINT ["server", "--drain", "8"]
CMD ["47374"]
