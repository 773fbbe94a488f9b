"""Short messages in English and Korean for the spam sample: made up here, from templates and word lists.

Nobody received them. They are like what people get: what a friend, a courier or an office writes (ham), what a shop
or a casino shouts (spam), what pretends to be a bank, a parcel or a child in need (phishing).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

LABELS = ("ham", "phishing", "spam")

WORDS: dict[str, tuple[str, ...]] = {
    "name": ("Anna", "Ben", "Carla", "David", "Mina", "Tom", "Yuna", "Peter"),
    "day": ("Monday", "Tuesday", "Thursday", "Friday", "tomorrow", "tonight", "next week"),
    "hour": ("3 pm", "half past six", "9:30", "noon", "7 pm", "10 am"),
    "place": ("the station", "the café", "our office", "the library", "home", "the gym"),
    "thing": ("the report", "the slides", "your keys", "the tickets", "the invoice", "dinner"),
    "shop": ("MegaStore", "ShoeWorld", "BestDeals", "PhoneCity", "LuckyCasino", "VitaPlus"),
    "percent": ("20%", "50%", "70%", "80%", "90%"),
    "money": ("$50", "$500", "$1,000", "€200", "$9,999"),
    "bank": ("City Bank", "PayPort", "First National", "your bank", "CardCenter"),
    "carrier": ("PostExpress", "ParcelNow", "the courier", "QuickShip"),
    "link": ("http://bit.example/a1", "www.win.example", "http://secure-login.example", "http://pay.example/x9"),
    "code": ("4821", "77310", "90125", "6634"),
    "ko_name": ("민수", "지영", "현우", "수진", "엄마", "팀장님", "유나", "철수"),
    "ko_day": ("내일", "오늘 저녁", "월요일", "금요일", "다음 주", "주말에"),
    "ko_hour": ("3시", "여섯 시 반", "9시", "점심때", "7시", "10시"),
    "ko_place": ("역 앞", "카페", "사무실", "도서관", "집", "학교"),
    "ko_thing": ("보고서", "발표 자료", "우산", "기차표", "책", "도시락"),
    "ko_shop": ("대박몰", "럭키카지노", "신발세상", "폰마트", "건강나라"),
    "ko_money": ("5만원", "10만원", "100만원", "300만원", "500만원"),
    "ko_bank": ("국민카드", "우리은행", "하나페이", "금융감독원", "신용정보원"),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "ham": (
        "Hi {name}, are we still meeting at {place} {day} at {hour}?",
        "I'm running late, see you at {hour} at {place}",
        "Can you send me {thing} before {day}? Thanks!",
        "{name} said the meeting moved to {hour}",
        "Happy birthday {name}! See you {day}",
        "I left {thing} at {place}, could you bring it {day}?",
        "Thanks for dinner, the kids had a great time. Say hi to {name}",
        "Your table for four is booked {day} at {hour}",
        "The dentist can see you {day} at {hour}, does that work for you?",
        "I read {thing} and added a few comments, let us talk {day}",
        "Train is delayed again, start lunch without me",
        "Did you watch the match? {name} scored twice",
        "Mum asks whether you come home {day}",
        "Practice is at {place} {day}, bring water",
        "Good morning! Is {thing} ready, or do you need more time?",
        "Lovely photos from the trip, {name}! Which camera did you use?",
        "{ko_name} {ko_day} {ko_hour}에 {ko_place}에서 만날까?",
        "조금 늦을 것 같아요, {ko_hour}까지 {ko_place}로 갈게요",
        "{ko_thing} 다 읽었어요. {ko_day} 이야기해요",
        "{ko_day} 회의는 {ko_hour}로 옮겼습니다",
        "생일 축하해 {ko_name}! {ko_day} 밥 같이 먹자",
        "{ko_place}에 {ko_thing} 두고 왔어, 좀 챙겨 줄래?",
        "어제 고마웠어요. 아이들이 정말 좋아했어요",
        "{ko_name}, 저녁 뭐 먹고 싶어?",
        "지금 지하철인데 {ko_hour}쯤 도착해요",
        "{ko_day} 비 온대, {ko_thing} 챙겨",
        "{ko_thing} 보내 주셔서 감사합니다. 확인하고 연락드릴게요",
        "점심 먹었어? {ko_day} 시간 되면 커피 마시자",
        "사진 잘 나왔다! {ko_name}한테도 보내 줘",
        "{ko_day} 수업은 {ko_place}에서 {ko_hour}에 시작합니다",
    ),
    "spam": (
        "WIN {money} now! Text {code} to play at {shop}",
        "You have won a prize! Call {code} to claim your {money}",
        "You have won a free voucher for {shop}, claim it today",
        "{shop} SALE: {percent} off everything, today only {link}",
        "Congratulations! You have been selected for a free prize of {money}. Claim at {link}",
        "FREE spins and a {money} bonus for new players at {shop} {link}",
        "Lose weight fast with {shop}! Order now and get {percent} off",
        "Cheap loans up to {money}, no checks, call {code} now",
        "Hot deal: new phones {percent} off at {shop}. Buy now {link}",
        "You won the lottery! Reply {code} to get your free {money} cash",
        "Limited offer!!! Buy one get one free at {shop}, {percent} off",
        "Earn {money} a day from home, free training, join now {link}",
        "Exclusive members-only discount: {percent} off pills and vitamins {link}",
        "Last chance to win a free holiday, call {code} now!",
        "Double your money in one week with crypto, join {link}",
        "Unlimited free games, bonus {money} today only at {shop}",
        "(광고) {ko_shop} 전 상품 최대 {percent} 할인, 오늘만! {link}",
        "축하합니다! {ko_money} 당첨되셨습니다. 지금 바로 신청하세요 {link}",
        "무료 쿠폰 지금 클릭 {link} {ko_shop}",
        "신규 회원 {ko_money} 보너스 지급! {ko_shop} 가입하세요",
        "[광고] 무담보 당일 대출 {ko_money}까지, 지금 상담 신청하세요",
        "하루 {ko_money} 재택 부업, 누구나 가능 지금 신청 {link}",
        "(광고) 다이어트 한 달 만에 10kg, {ko_shop} 특가 할인",
        "단 하루 특가! {ko_shop} {percent} 할인 무료 배송",
        "무료 체험 이벤트 당첨! {ko_shop} 경품 받으세요",
        "주식 급등주 무료 추천방, {percent} 수익 보장 {link}",
        "(광고) 최신폰 공짜 이벤트, {ko_shop} 선착순 할인",
        "로또 1등 번호 무료 제공, 지금 가입하면 {ko_money} 지급",
        "대출 금리 최저 {ko_money} 즉시 입금, 광고 상담 무료",
        "{ko_shop} 첫 충전 보너스 {percent}, 무료 게임 지금 가입",
    ),
    "phishing": (
        "{bank}: your account is locked. Verify your password at {link}",
        "Your parcel from {carrier} could not be delivered, pay the fee of {money} at {link}",
        "Unusual sign-in to your account. Confirm your identity here {link}",
        "{bank} alert: a payment of {money} was made with your card. If this was not you log in at {link}",
        "Hi mum, my phone is broken, this is my new number. Can you send {money} to this account?",
        "Tax office: you are owed a refund of {money}. Enter your card details at {link}",
        "Your subscription payment failed, update your card information at {link} to keep your account",
        "{carrier}: address incomplete, confirm your delivery details within 24 hours {link}",
        "Security notice: your password expires today, verify your account {link}",
        "{bank} will suspend your card. Enter the code {code} and your PIN at {link}",
        "Dad, I lost my phone, please transfer {money} for the rent to my friend's account",
        "You have an unpaid toll of {money}, pay at {link} or your account will be fined",
        "IT desk: your mailbox is full, log in at {link} with your password to keep it",
        "Your identity was used for a loan at {bank}. Verify your details now {link}",
        "[{ko_bank}] 고객님 계좌가 정지되었습니다. 비밀번호 확인 {link}",
        "[택배] 주소 불일치로 배송이 보류되었습니다. 주소 확인 {link}",
        "엄마 나 폰 고장 났어, 이 번호로 {ko_money} 보내 줘",
        "[{ko_bank}] {ko_money} 해외 결제 승인. 본인이 아닌 경우 즉시 확인 {link}",
        "[국세청] 환급금 {ko_money}이 있습니다. 계좌 정보를 입력하세요 {link}",
        "아빠 나 액정 깨졌어, 급하게 {ko_money} 계좌로 송금해 줘",
        "[{ko_bank}] 비정상 로그인이 감지되었습니다. 본인 인증 바랍니다 {link}",
        "고객님 명의로 대출 {ko_money}이 신청되었습니다. 본인 확인 {link}",
        "[우체국] 택배 반송 예정, 배송지 정보 확인 {link}",
        "[검찰청] 고객님 계좌가 범죄에 연루되었습니다. 본인 인증 {link}",
        "교통 범칙금 {ko_money} 미납, 계좌 납부 확인 {link}",
        "[{ko_bank}] 카드 발급 완료. 신청하지 않은 경우 고객센터 확인 {link}",
        "비밀번호가 오늘 만료됩니다. 로그인하여 계정 정보 확인 {link}",
        "엄마 휴대폰이 고장 나서 친구 폰이야, 신분증 사진이랑 계좌 비밀번호 보내 줘",
    ),
}


@dataclass(frozen=True)
class Message:
    """One made message; ``template`` numbers what it was made from."""

    text: str
    label: str
    template: int


def messages(seed: int = 7, each: int = 14) -> list[Message]:
    """The same messages for a seed: ``each`` times every template, in random order, without repetition."""
    choose = random.Random(seed)
    templates = [(label, template) for label in LABELS for template in TEMPLATES[label]]
    made: dict[str, Message] = {}
    for number, (label, template) in enumerate(templates):
        for _ in range(each):
            text = _fill(template, choose)
            made[text] = Message(text, label, number)
    found = list(made.values())
    choose.shuffle(found)
    return found


def _fill(template: str, choose: random.Random) -> str:
    slots = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    # Sorted: the order of a set of strings changes from run to run.
    text = template.format(**{name: choose.choice(WORDS[name]) for name in sorted(slots)})
    return choose.choice((text, text, text, text.upper(), text.lower()))
