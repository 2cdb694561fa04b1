import { ERROR_CATALOGUE } from '../contracts/error-codes.ts';
import type { AnyEndpoint } from './endpoint.ts';

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f4f4f5;padding:.75rem;overflow:auto;border-radius:6px}
h2{margin-top:2.5rem;border-bottom:1px solid #ddd}summary{cursor:pointer;padding:.3rem 0}
.method{display:inline-block;min-width:4.5rem;font-weight:600}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #e4e4e7;vertical-align:top}
@media (prefers-color-scheme:dark){body{color:#e4e4e7;background:#18181b}pre{background:#27272a}h2,td,th{border-color:#3f3f46}a{color:#93c5fd}}`;

/** The reference as one page without scripts or outside assets. */
export function docsPage(endpoints: readonly AnyEndpoint[], document: object): string {
  const paths = (document as { paths: Record<string, Record<string, object>> }).paths;
  const tags = [...new Set(endpoints.map((item) => item.tag))];
  const sections = tags.map((tag) => {
    const items = endpoints.filter((item) => item.tag === tag);
    return `<h2>${escape(tag)}</h2>${items.map((item) => operation(item, paths)).join('')}`;
  });
  const intro = `<p>Send <code>Authorization: Bearer &lt;key&gt;</code> or <code>x-api-key</code>. The machine-readable
    document is <a href="/openapi.json">/openapi.json</a>; errors are listed at <a href="/docs/errors">/docs/errors</a>.</p>`;
  return page('Longhaul API', intro + sections.join(''));
}

function operation(item: AnyEndpoint, paths: Record<string, Record<string, object>>): string {
  const detail = paths[item.path]?.[item.method] ?? {};
  const { parameters, requestBody, responses } = detail as Record<string, unknown>;
  const description = item.description === undefined ? '' : `<p>${escape(item.description)}</p>`;
  return `<details><summary><span class="method">${item.method.toUpperCase()}</span><code>${escape(item.path)}</code>
    — ${escape(item.summary)}</summary>${description}
    <pre>${escape(JSON.stringify({ parameters, requestBody, responses }, null, 2))}</pre></details>`;
}

/** The catalogue of errors, each with an anchor that `doc_url` points to. */
export function errorsPage(): string {
  const rows = Object.entries(ERROR_CATALOGUE).map(
    ([code, entry]) =>
      `<tr id="${escape(code)}"><td><code>${escape(code)}</code></td><td>${entry.status}</td><td>${escape(entry.type)}</td>
       <td>${entry.retryable ? 'yes' : 'no'}</td><td>${escape(entry.next)}</td></tr>`,
  );
  return page(
    'Longhaul errors',
    `<table><thead><tr><th>Code</th><th>Status</th><th>Type</th><th>Retry</th><th>What to do</th></tr></thead>
     <tbody>${rows.join('')}</tbody></table>`,
  );
}

function page(title: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <title>${escape(title)}</title><style>${STYLE}</style></head><body><h1>${escape(title)}</h1>${body}</body></html>`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
