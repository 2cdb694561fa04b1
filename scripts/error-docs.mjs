// Writes the table of docs/reference/errors.md from the catalogue of the built product: node scripts/error-docs.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { ERROR_CATALOGUE } from '../dist/contracts/error-catalogue.js';

const file = new URL('../docs/reference/errors.md', import.meta.url);
const text = readFileSync(file, 'utf8');
const head = text.slice(0, text.indexOf('\n| Code'));
const before = text.slice(text.indexOf('\n| Code'));
const end = before.search(/\n\n(?!\|)/);
const tail = end === -1 ? '\n' : before.slice(end);
const rows = Object.entries(ERROR_CATALOGUE).map(
  ([code, entry]) =>
    `| <a id="${code}"></a>\`${code}\` | ${entry.status} | \`${entry.type}\` | ${entry.retryable ? 'yes' : 'no'} | ${entry.next} |`,
);
writeFileSync(
  file,
  [head, '| Code | Status | Type | Retry | What to do |', '| --- | --- | --- | --- | --- |', ...rows].join('\n') + tail,
);
