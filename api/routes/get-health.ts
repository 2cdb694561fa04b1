import { rawEndpoint } from '../endpoint.ts';

export const getHealth = rawEndpoint({
  path: '/healthz',
  tag: 'Operation',
  summary: 'The process lives',
  public: true,
  contentType: 'application/json',
  handle({ res }) {
    res.json({ status: 'ok' });
    return Promise.resolve();
  },
});
