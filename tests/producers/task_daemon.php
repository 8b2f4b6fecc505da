<?php
// As the producers of the Redis task daemon do it: php task_daemon.php PORT JSON
[, $port, $params] = $argv;
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $port);
$redis->lPush('queue:email', json_encode([
    'worker' => 'resize',
    'class'  => 'Images',
    'params' => json_decode($params, true),
]));
