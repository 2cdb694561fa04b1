/** All shapes of the API, for clients in this language. */
export * from './agents.ts';
export * from './approvals.ts';
export * from './budgets.ts';
export * from './caching.ts';
export * from './definitions.ts';
export * from './deployments.ts';
export * from './environments.ts';
export * from './error-codes.ts';
export * from './events.ts';
export * from './ids.ts';
export * from './key-scopes.ts';
export * from './keys.ts';
export * from './limits.ts';
export { bidirectionalPageOf, pageOf } from './paging.ts';
export * from './sessions.ts';
export * from './states.ts';
export * from './traces.ts';
