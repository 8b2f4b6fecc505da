<?php
// As MixPHP's guide has it: php mixphp.php PORT [serialize | json | option] [COUNT] [PAUSE_US]
// Prints the time before each push.
[, $port, $how, $count, $pause] = $argv + [2 => 'serialize', 3 => 1, 4 => 0];
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $port);
if ($how === 'option') {
    $redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
}
for ($number = 0; $number < $count; $number++) {
    $data = [
        'to'      => ["u$number@example.org" => 'A name', "v$number@example.org" => '收件人'],
        'subject' => '测试邮件 Grüße',
        'body'    => "这是正文\nHere is the message itself",
    ];
    printf("%.6f\n", microtime(true));
    match ($how) {
        'serialize' => $redis->lPush('queue:email', serialize($data)),
        'json'      => $redis->lPush('queue:email', json_encode($data)),
        'option'    => $redis->lPush('queue:email', $data),
    };
    usleep((int) $pause);
}
