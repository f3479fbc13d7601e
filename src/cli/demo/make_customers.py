"""Writes customers.csv: synthetic customers for the demo. The same bytes on every run.

Nobody in it exists: names are drawn at random from lists, addresses are at example.com, telephone numbers lie in ranges
kept for fiction, social security numbers begin with 9, card numbers fail their check digit and IBANs have the check
digits 00, which no bank uses.
"""

import csv
import pathlib
import random

ROWS = 3_000

# (given names, family names, family name first, telephone, country of the IBAN)
PEOPLE = [
    ("Ada Grace Iris June Nora Rose Tessa Wren Felix Hugo Otis Silas Theo Miles", "Ashdown Birch Carrow Dunmore Fairleigh Garrick Holloway Kestrel Merrow O'Dell Pryce Thorne", False, "+1-202-555-01{:02d}", "GB"),
    ("Anaïs Chloé Éloïse Zoé Gaël Léo Noël Rémi", "Béranger d'Aubigné Fauchère Lévêque Montclair Prévôt", False, "+33 1 99 00 {:02d} {:02d}", "FR"),
    ("Jürgen Käthe Lörke Sönke Änne Bärbel Götz", "Bäumler Größmann Köhne Müßig Straußner Zöllig", False, "+49 30 23125 {:03d}", "DE"),
    ("Begoña Íñigo José Nuño Úrsula Ximena", "Arriñon Íbarz Muñalba Peñarte Sigüenzo", False, "+34 91 000 {:02d} {:02d}", "ES"),
    ("Åsa Björn Søren Øystein Þóra Ægir Łucja Żaneta Čeněk Šárka", "Åkerblad Ødegårdsen Þorlund Żurawik Řezníčko Čížkar", False, "+46 8 465 004 {:02d}", "SE"),
    ("Анна Борис Вера Глеб Дарья Зоя Юрий Ярослав", "Белозорин Дубравская Ёлкин Журавец Щеглов", False, "+999 {:03d} {:04d}", "BG"),
    ("Αθηνά Δημήτρης Ελένη Ζωή Οδυσσέας", "Αστεριάδης Καλλιγάς Νερατζής Φεγγάρης", False, "+999 {:03d} {:04d}", "GR"),
    ("أمل سلمى طارق ليلى هشام", "البحيري الزهراوي النجمي القمري", False, "+999 {:03d} {:04d}", "AE"),
    ("אורי דפנה יעל נועם", "אלמוגן ברושי כרמלון", False, "+999 {:03d} {:04d}", "IL"),
    ("आरव दिव्या ईशान मीरा", "चन्द्रवीर नीलकण्ठी सूर्यमान", False, "+999 {:03d} {:04d}", "GB"),
    ("அருண் கவிதா மாலினி", "செந்தூரன் நிலவழகன்", False, "+999 {:03d} {:04d}", "GB"),
    ("晓雨 子墨 若溪 明远 思齐", "欧阳 司徒 林 沈 陆", True, "+999 {:03d} {:04d}", "GB"),
    ("さくら 蓮 陽菜 悠真", "霧島 月岡 花園 雪村", True, "+999 {:03d} {:04d}", "GB"),
    ("가온 나래 다온 하늘", "남궁 선우 황보", True, "+999 {:03d} {:04d}", "GB"),
    ("กานดา ชลธี มาลี", "ดวงจันทร์ทอง ศรีสายรุ้ง", False, "+999 {:03d} {:04d}", "GB"),
    ("ኣበባ ሰላም", "ኮከቤ ፀሐይነህ", False, "+999 {:03d} {:04d}", "GB"),
    ("ანა გიორგი", "ვარსკვლავიძე მთვარელი", False, "+999 {:03d} {:04d}", "GE"),
]

NOTES = [
    "",
    "",
    "",
    "prefers e-mail",
    'said "call me back", then hung up',
    "two lines:\nthe second, with a comma",
    "dictated on a machine\r\nthat ends lines its own way",
    "allergic to penicillin; carries an injector",
    " leading and trailing spaces ",
    "tab\there",
    "😀 family: 👩‍👩‍👧‍👦, flag: 🏳️‍🌈",
    "e\u0301 is not é here",
    "=SUM(A1:A9)",
    "NULL",
    "fk1:not-a-ciphertext",
    'only a quote: "',
    "long: " + "the quick brown fox jumps over the lazy dog, " * 12,
]


def fill(pattern, rng):
    """Puts digits where the pattern wants them."""
    return pattern.format(rng.randrange(100), rng.randrange(100)) if pattern.count("{") > 1 and "02d} {:02d}" in pattern else pattern.format(
        rng.randrange(100 if "02d" in pattern else 1000), rng.randrange(10000)
    )


def card_number(rng):
    """Sixteen digits whose check digit is wrong."""
    digits = [9, 9, 9, 9] + [rng.randrange(10) for _ in range(11)]
    total = sum(d if i % 2 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(digits))
    right = (10 - total % 10) % 10
    return "".join(map(str, digits + [(right + 1 + rng.randrange(8)) % 10]))


def customer(number, rng):
    """One row."""
    given_names, family_names, family_first, phone, country = rng.choice(PEOPLE)
    given, family = rng.choice(given_names.split()), rng.choice(family_names.split())
    name = (family + given if country == "GB" and family_first else f"{given} {family}")
    local = rng.choice(["amber", "basalt", "cedar", "delta", "ember", "fjord", "grove", "harbor", "indigo", "juniper"])
    return [
        number,
        name,
        f"{local}.{rng.randrange(16**6):06x}@example.com",
        "" if rng.random() < 0.05 else fill(phone, rng),
        f"9{rng.randrange(100):02d}-{rng.randrange(100):02d}-{rng.randrange(10000):04d}",
        "" if rng.random() < 0.1 else card_number(rng),
        "" if rng.random() < 0.3 else f"{country}00FKEX{rng.randrange(10**14):014d}",
        rng.choice(NOTES),
    ]


def main():
    """Writes the file beside this script."""
    rng = random.Random("fieldkeep demo")
    path = pathlib.Path(__file__).with_name("customers.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("id name email phone ssn card_number iban notes".split())
        writer.writerows(customer(number, rng) for number in range(1, ROWS + 1))


main()
