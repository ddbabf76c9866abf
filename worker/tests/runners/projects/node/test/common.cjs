const { test } = require('node:test');
test('cjs', () => {});
