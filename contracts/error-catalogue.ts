/** Zod-free. The one catalogue of errors: code → HTTP status, Anthropic-style type, retryable, and what to do next. */
interface ErrorEntry {
  status: number;
  type:
    | 'invalid_request_error'
    | 'authentication_error'
    | 'billing_error'
    | 'permission_error'
    | 'not_found_error'
    | 'conflict_error'
    | 'gone_error'
    | 'request_too_large'
    | 'rate_limit_error'
    | 'api_error'
    | 'overloaded_error'
    | 'timeout_error';
  retryable: boolean;
  next: string;
}

/** Codes that differ in what to do next only. */
function alike<K extends string>(
  status: ErrorEntry['status'],
  type: ErrorEntry['type'],
  repeat: 'retry' | 'final',
  next: Record<K, string>,
): Record<K, ErrorEntry> {
  const entries = Object.entries<string>(next);
  const retryable = repeat === 'retry';
  return Object.fromEntries(entries.map(([code, text]) => [code, { status, type, retryable, next: text }])) as Record<
    K,
    ErrorEntry
  >;
}

export const ERROR_CATALOGUE = {
  ...alike(400, 'invalid_request_error', 'final', {
    invalid_request: 'Correct the named field and send the request again.',
    invalid_json: 'Send a JSON object as the body.',
    invalid_path: 'Check the percent-escapes of the URL.',
    model_not_budgetable: 'Set a price for the model or remove the budget.',
    budget_create_only: 'Give a budget when the session is created.',
    budget_not_raised: 'A budget may only be raised above what is already spent.',
    provider_rejected: 'The model provider refused the request; read its message.',
    conversation_too_long: 'Send the next message with a model of a larger context, or go on in a new session.',
    sandbox_unsupported: 'Choose a sandbox provider that can do this; `capabilities` tells which.',
    sandbox_invalid: 'Correct the argument the message names.',
    git_over_ssh: 'Give the https URL of the repository and a token, by a `git` credential or `authorization_token`.',
    harness_invalid: 'Choose a harness, placement and agent that this installation has; the message names them.',
  }),
  ...alike(401, 'authentication_error', 'final', {
    missing_api_key: 'Send Authorization: Bearer <key> or x-api-key.',
    invalid_api_key: 'Use a key that exists and is not revoked or expired.',
  }),
  ...alike(402, 'billing_error', 'final', {
    budget_exceeded: 'Raise the budget, then ask again; a session goes on with the next message.',
  }),
  ...alike(403, 'permission_error', 'final', {
    forbidden: 'Use a key with the needed scope.',
    model_not_allowed: 'Use a model this key may call.',
  }),
  ...alike(404, 'not_found_error', 'final', {
    not_found: 'Check the id; list the resource to see what exists.',
    route_not_found: 'See /openapi.json for the routes.',
    model_not_found: 'GET /v1/models lists the models.',
    sandbox_not_found: 'The sandbox was destroyed; a new one is made on demand.',
  }),
  ...alike(405, 'invalid_request_error', 'final', {
    method_not_allowed: 'See /openapi.json for the methods of this path.',
  }),
  ...alike(409, 'conflict_error', 'final', {
    version_conflict: 'Read the resource again and send its current version.',
    already_decided: 'Read the approval: it was decided otherwise already.',
    idempotency_conflict: 'Use a new Idempotency-Key for a different body.',
    session_terminated: 'Create a new session: a terminated one is never resumed.',
    session_archived: 'Create a new session: an archived one takes no events.',
    archived: 'Use a resource that is not archived.',
    in_use: 'Archive it instead: other resources still refer to it.',
    already_exists: 'Use another name, or update the one that has it.',
    limit_reached: 'Archive or delete what is not needed any more.',
    credential_revoked: 'Use a credential that is neither archived nor deleted.',
    credential_needs_reauth: 'Authorize again and update the credential with the new tokens.',
    no_turn_running: 'Tools and models answer a harness while a turn of its session runs; send a message first.',
    no_pending_action: 'The tool call is not waiting for an answer; list the session events.',
    file_quota: 'Delete files that are not needed, then ask again.',
    cancelled: 'The model call was cancelled; ask under a new Idempotency-Key.',
  }),
  ...alike(409, 'conflict_error', 'retry', {
    idempotency_in_progress: 'The first request with this key is still running; retry shortly.',
    session_busy: 'Interrupt the session or wait until it is idle.',
  }),
  ...alike(410, 'gone_error', 'final', {
    approval_expired: 'The approval has expired; the agent was told. Ask it to try again.',
    port_closed: 'The link ran out, was closed, or its session ended; open the port again.',
  }),
  ...alike(413, 'request_too_large', 'final', {
    request_too_large: 'Send a smaller body.',
    file_too_large: 'Send a smaller file; the message names the limit.',
  }),
  ...alike(415, 'invalid_request_error', 'final', {
    unsupported_media_type: 'Send content-type: application/json.',
  }),
  ...alike(416, 'invalid_request_error', 'final', {
    range_not_satisfiable: 'Ask for a range inside the file.',
  }),
  ...alike(429, 'rate_limit_error', 'retry', {
    queue_full: 'Wait until the session has worked off its queue.',
    rate_limited: 'Retry after the time in the Retry-After header.',
    too_many_parallel_calls: 'Wait for a running call of this key to end.',
    provider_rate_limited: 'The model provider limits the rate; retry later.',
  }),
  ...alike(500, 'api_error', 'final', {
    sandbox_lost: 'The sandbox is gone; its running command has an unknown outcome.',
    insecure_bind: 'Bind loopback, or create an API key and set LONGHAUL_ALLOW_PUBLIC=1.',
    setup_required: 'Run `longhaul setup`, then `longhaul doctor`.',
  }),
  ...alike(500, 'api_error', 'retry', {
    internal: 'Retry; if it stays, report the request id.',
  }),
  ...alike(502, 'api_error', 'final', {
    provider_auth: 'Ask the operator to check the provider key of the gateway.',
  }),
  ...alike(503, 'api_error', 'final', {
    sandbox_auth: 'Ask the operator to check the credentials of the sandbox provider.',
  }),
  ...alike(503, 'api_error', 'retry', {
    credential_unavailable:
      'Retry; if it stays, check the vault back end the message names, and the master keys of the broker.',
    sandbox_unavailable: 'Run `longhaul doctor` to see what the sandbox needs.',
    harness_unavailable: 'Run `longhaul harness doctor` where the worker runs to see what the harness needs.',
    database_unavailable: 'Retry: the database is restarting or unreachable.',
    temporal_unavailable: 'Retry: the Temporal server is restarting or unreachable.',
  }),
  ...alike(503, 'overloaded_error', 'final', {
    sandbox_quota: 'Raise the quota at the sandbox provider, or end sandboxes that are not needed.',
  }),
  ...alike(503, 'overloaded_error', 'retry', {
    sandbox_busy: 'The sandbox provider limits requests; retry later.',
  }),
  ...alike(504, 'timeout_error', 'retry', {
    provider_timeout: 'The model provider did not answer in time; retry.',
  }),
  ...alike(529, 'overloaded_error', 'retry', {
    provider_unavailable: 'The model provider is down or overloaded; retry later.',
  }),
};
